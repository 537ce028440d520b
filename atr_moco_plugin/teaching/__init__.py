"""Teachers of a criterion: their saved embeddings are read, checked against the data, and made
where a teacher is a training run or a bundle.

:func:`use_teachers` does all of it, for every host, and :func:`check_teachers` what needs no model.
The loss is in ``criterion.teachers``: here belongs what touches files, data sets and models. May
not import a host.
"""

from atr_moco_plugin.teaching.files import SavedTeacher, read_teacher
from atr_moco_plugin.teaching.use import check_teachers, use_teachers

__all__ = ["SavedTeacher", "check_teachers", "read_teacher", "use_teachers"]
