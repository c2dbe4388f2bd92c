/* The network image and its input, linked into the program: IMAGE_FILE and INPUT_FILE are paths. */
    .section .image, "a"
    .balign 64
    .global image_start, image_end, input_start, input_end
image_start:
    .incbin IMAGE_FILE
image_end:
    .balign 64
input_start:
    .incbin INPUT_FILE
input_end:
