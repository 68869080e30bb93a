"""Files as they lie on disk: headers, the index, config.json and the folder around them."""
