"""torchvision, torchaudio and timm import beside any build of torch, here and in Ray workers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from mien_models import companions

USE_COMPANIONS = """
import mien
import torch, torchvision, torchaudio, timm
from torchvision.transforms import v2
picture = torch.randint(0, 255, (2, 3, 8, 8), dtype=torch.uint8)
assert v2.Resize((4, 4), antialias=True)(picture).shape == (2, 3, 4, 4)
wave = torch.sin(torch.arange(16000) * 0.1)[None]
bank = torchaudio.compliance.kaldi.fbank(wave, num_mel_bins=16, sample_frequency=16000.0)
assert bank.shape == (98, 16)
with torch.device("meta"):
    model = timm.create_model("vit_tiny_patch16_224")
print("companions work")
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_companions_import_in_a_fresh_process_without_a_warning() -> None:
    result = run_python(USE_COMPANIONS)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "companions work"


def test_finder_is_installed_once() -> None:
    companions.install()
    companions.install()
    finders = [item for item in sys.meta_path if isinstance(item, companions.CompanionFinder)]
    assert len(finders) == 1


def test_finder_leaves_other_imports_alone() -> None:
    finder = companions.CompanionFinder()
    for name in ("json", "torchvision.transforms", "torchaudio", "no_such_package"):
        assert finder.find_spec(name) is None


@pytest.fixture
def fake_companions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torchvision and a torchaudio without compiled parts, found before the real ones."""
    for name in ("torchvision", "torchaudio"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "torchaudio" / "lib").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def loadable_library() -> Path:
    """A real compiled library that torch can load everywhere: one of its own."""
    return Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"


def test_compiled_part_that_loads_is_left_alone(fake_companions: Path) -> None:
    (fake_companions / "torchvision" / "_C.so").symlink_to(loadable_library())
    extension = fake_companions / "torchaudio" / "lib" / "_torchaudio.abi3.so"
    extension.symlink_to(loadable_library())
    assert companions.compiled_part_loads("torchvision")
    assert companions.compiled_part_loads("torchaudio")
    search = [str(fake_companions / "torchaudio")]
    assert companions.CompanionFinder().find_spec("torchaudio._extension", search) is None


def test_compiled_part_that_does_not_load_is_replaced(fake_companions: Path) -> None:
    (fake_companions / "torchvision" / "_C.so").write_bytes(b"no library")
    (fake_companions / "torchaudio" / "lib" / "_torchaudio.abi3.so").write_bytes(b"no library")
    assert not companions.compiled_part_loads("torchvision")
    assert not companions.compiled_part_loads("torchaudio")
    search = [str(fake_companions / "torchaudio")]
    spec = companions.CompanionFinder().find_spec("torchaudio._extension", search)
    assert spec is not None


def test_missing_package_is_said_to_be_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="torchnothing is not installed"):
        companions.compiled_part_loads("torchnothing")


RAY_WORKER = """
import sys
import ray

ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000,
         log_to_driver=False, _temp_dir=sys.argv[1])

@ray.remote
def use():
    import contextlib, io
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(SOURCE, "use", "exec"), {})
    return printed.getvalue().strip()

try:
    print(ray.get(use.remote()))
finally:
    ray.shutdown()
"""


@pytest.mark.ray
def test_companions_import_in_a_ray_worker() -> None:
    # Ray's sockets need a short path, which tmp_path is not.
    with tempfile.TemporaryDirectory(prefix="mr") as folder:
        result = subprocess.run(
            [sys.executable, "-c", f"SOURCE = {USE_COMPANIONS!r}\n{RAY_WORKER}", folder],
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip().splitlines()[-1] == "companions work"
