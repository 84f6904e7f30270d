# check=experimental=all
# wrong words
ARG a

# base the base
FROM scratch AS base
# two names
ARG b c
