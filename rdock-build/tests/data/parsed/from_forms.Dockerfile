FROM --platform=linux/amd64 image AS Base
FROM base as second
FROM image@sha256:0123 
from scratch
