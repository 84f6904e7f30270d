FROM a SA b
