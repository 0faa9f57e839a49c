"""Where `edged watch` gets its frames: a folder that something writes images to, or a camera."""
