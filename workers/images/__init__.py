"""The only code that opens untrusted images, in sandboxed children."""
