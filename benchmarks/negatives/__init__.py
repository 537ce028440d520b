"""Which negatives are worth their cost? Criteria at equal training time.

    python -m benchmarks.negatives OUT [--scenes FOLDER] [--esc50 FOLDER] [--jobs 2]
    python -m benchmarks.negatives OUT --table | --predictors | --figures FOLDER | --stale

Here belongs one module for each step: what is compared (:mod:`.variants`, :mod:`.data`), what a
step costs (:mod:`.prices`), which runs follow from that (:mod:`.plan`), how they are made
(:mod:`.workers`, :mod:`.running`, :mod:`.held_out`), their rows (:mod:`.rows`, :mod:`.code`), and
what the rows say (:mod:`.tables`, :mod:`.figures`, :mod:`.predictors`, by :mod:`.intervals`).
"""
