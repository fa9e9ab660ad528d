"""The transformer (paper 3.1.3): LLaMa-3 blocks that predict the flow's velocity."""
