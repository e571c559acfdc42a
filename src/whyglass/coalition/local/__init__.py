"""Local surrogates and perturbations: LIME, occlusion, RISE, feature permutation."""
