"""Asks shops whether a purchase is one: Apple's App Store by its signature, Google Play over its API."""
