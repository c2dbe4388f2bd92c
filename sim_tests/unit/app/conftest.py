import torch

# Tests run side by side and their maps are small: threads of one test would only wait for those of the other.
torch.set_num_threads(1)
