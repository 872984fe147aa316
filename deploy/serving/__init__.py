"""The model server: reads verified bundles, answers over HTTP, follows the pointers that the deployer writes."""
