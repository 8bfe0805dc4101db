"""Which clips there are: manifest, label sets, splits, ingestion.

Everything later in Mien reads manifests only. A manifest is one Parquet file with one row a clip;
a `LabelSet` says which logit is which class; a `Split` says who is trained on and who is tested on.
No module here knows Ray.
"""
