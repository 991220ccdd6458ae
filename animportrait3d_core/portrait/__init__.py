"""Static portraits behind one protocol: what the pipeline starts from, and the views rendered of it.

Here live the `Portrait` protocol, its kinds (a textured mesh, the trigrid field in `trigrid`), the alignment of a mesh
to the head frame, and the rendering of views. Bodies, avatars and file formats of meshes live elsewhere; nothing here
knows what happens to the views.
"""
