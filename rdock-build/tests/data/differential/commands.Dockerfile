FROM base AS first
ENTRYPOINT ["/bin/entry"]
FROM first AS second
CMD ["arguments"]
FROM second
ENTRYPOINT ["/bin/other", "x"]
