"""How often the golden proof is wrong: good weights refused, wrong weights let through. See docs/serving.md."""
