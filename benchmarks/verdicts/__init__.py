"""How often a verdict is wrong: explanations beside truths that are known."""
