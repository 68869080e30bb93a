"""A local server that speaks the Hub's protocol, and how tests use it.

The client reads HF_ENDPOINT and the like once, when it is imported. So a test of the command runs
it in a process of its own, with the environment set:

    run_dus(hub, "inspect", "org/name", token=MEMBER)

and a test that calls the client in this process says where the server is:

    HfApi(endpoint=hub.url, token=MEMBER).model_info("org/name")

The fixture `hub` gives a server, the fixture `client` such an HfApi.
"""
