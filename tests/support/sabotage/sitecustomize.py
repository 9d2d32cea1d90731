"""Found on the path after ProfileMate's own, which runs it before vLLM is imported: breaks what SABOTAGE names."""

import sabotage

sabotage.begin()
