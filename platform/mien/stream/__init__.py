"""From manifest to batches: select clips, order them, decode late, batch, count what failed.

``select.py``     which clips a stream holds
``order.py``      which of them make up step 17, from hash(seed, epoch) alone
``load.py``       one clip reference to arrays: decode, align, augment, log-mel
``batches.py``    arrays of clips to a ``ClipBatch``
``quarantine.py`` clips that could not be decoded, with their reasons
``source.py``     Ray Data (or the calling process) runs the loading; ``ClipSource`` is what the
                  training loop opens streams with
"""
