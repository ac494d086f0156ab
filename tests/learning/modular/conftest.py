import pytest


@pytest.fixture(autouse=True)
def one_thread(request):
    """Threads that wait for each other take all of a busy machine."""
    if "torch" not in vars(request.module):
        yield
        return
    import torch

    many = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(many)
