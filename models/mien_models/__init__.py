"""The methods of Mien: five published facial-expression methods in plain PyTorch.

Nothing here knows Ray, MLflow or a file system. A method is a folder; ``contract/`` says what a
method is. Start there.
"""

from mien_models import companions

companions.install()
