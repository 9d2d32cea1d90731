"""How the engines worked: what bound their steps, who waited for whom, and what was computed twice."""
