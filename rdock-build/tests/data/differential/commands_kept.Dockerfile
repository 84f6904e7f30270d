FROM base
CMD ["kept"]
ENTRYPOINT ["/bin/entry"]
