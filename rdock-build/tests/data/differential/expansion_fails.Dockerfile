FROM base
ENV a="${missing:?has to be given}"
