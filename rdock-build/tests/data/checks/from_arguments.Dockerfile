ARG base
ARG TAG=
FROM ${base:-scratch}$TGA
FROM image:$TAG
FROM --platform=$TARGETPLATFORM scratch
FROM --platform=linux/arm64 scratch
FROM --platform=linux/arm64 scratch AS for_arm64
