FROM base
ENTRYPOINT []
CMD ["a", 'b']
