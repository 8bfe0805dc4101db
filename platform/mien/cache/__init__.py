"""Clips decoded, cropped and followed once: JPEG or PNG frames and sound in sharded Parquet files.

``settings.py``  what the entries of one kind were made with
``identity.py``  which file contents a clip stands for, so that a changed source is noticed
``images.py``    frames to bytes and back
``pieces.py``    every frame of a clip, in bounded memory
``shards.py``    Parquet files of clips, one row group each
``index.py``     what is in a shard; a shard counts when its index is there
``store.py``     ``ClipCache``: a folder or bucket with shards; finds, adds, removes
``build.py``     makes the entries that are missing, on Ray or in this process
``verify.py``    reads everything and names what is damaged
``view.py``      ``CachedClips``: what loaders read from, sent to all workers
"""
