"""What kernels cost here: measured figures, and the thresholds that follow from them."""
