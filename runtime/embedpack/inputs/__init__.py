"""Texts, images and PDF pages, from files to graph inputs."""
