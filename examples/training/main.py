"""Fits a curve on the processor; the loss falls."""

import torch
from tqdm import trange

torch.manual_seed(0)
x = torch.linspace(-3, 3, 256).unsqueeze(1)
y = torch.sin(x) + 0.1 * torch.randn_like(x)

model = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

# The bar shows itself on terminals alone.
for epoch in trange(1, 201, disable=None):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    if epoch == 1 or epoch % 25 == 0:
        print(f"epoch {epoch:3} loss {loss.item():.5f}", flush=True)
