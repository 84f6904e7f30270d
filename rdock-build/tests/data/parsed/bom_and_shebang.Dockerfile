#!/usr/bin/env docker
# syntax=x
FROM scratch
