"""MoE routing: which experts the routers of a mixture-of-experts model choose, counted on the model's device."""
