"""Values of a config that are right alone and wrong together."""

from __future__ import annotations

import re
from typing import Any

import pytest

from xjepa_jax.config import resolve
from xjepa_jax.errors import ConfigError


@pytest.mark.parametrize(
  ("content", "complaint"),
  [
    ({"training": {"batch": 8, "accumulate": 3}}, r"'training\.accumulate' is 3.*batch = 8"),
    ({"heads": {}}, r"'heads' is empty"),
    (
      {"target": {"momentum": 0.996}},
      r"'target\.momentum' is 0\.996.*'power'.*target\.lag.*'linear'",
    ),
    ({"target": {"final_momentum": 1.0}}, r"'target\.final_momentum' is 1\.0.*'power'"),
    (
      {"target": {"schedule": "linear", "lag": 0.1}},
      r"'target\.lag' is 0\.1, and target\.schedule is 'linear'",
    ),
    ({"evaluation": {"head": "layuot"}}, r"'evaluation\.head' is 'layuot'.*layout, semantic"),
    (
      {"heads": {"layout": {"pooling": "grid", "cells": 3, "size": 32}}},
      r"'heads\.layout\.size' is 32.*9 cells",
    ),
    (
      {"heads": {"layout": {"pooling": "grid", "cells": 2, "size": 32, "prefixes": (8, 10)}}},
      r"'heads\.layout\.prefixes' is \(8, 10\).*below heads\.layout\.size = 32.*the 4 cells",
    ),
    (
      {"heads": {"layout": {"size": 32, "prefixes": (16, 8)}}},
      r"'heads\.layout\.prefixes' is \(16, 8\); expected rising numbers",
    ),
    ({"heads": {"layout": {"size": 32, "prefixes": (32,)}}}, r"below heads\.layout\.size = 32\."),
    (
      {"heads": {"layout": {"pooling": "gradients", "cells": 2, "size": 36, "prefixes": (9,)}}},
      r"'heads\.layout\.prefixes' is \(9,\).*'gradients' cannot be cut.*'canonical'",
    ),
    (
      {"heads": {"layout": {"pooling": "gradients", "cells": 2, "size": 32}}},
      r"'heads\.layout\.size' is 32.*2 x 2 cells x 9 directions = 36",
    ),
    (
      {"heads": {"layout": {"pooling": "canonical", "cells": 2, "numbers": 3, "size": 13}}},
      r"'heads\.layout\.size' is 13.*2 x 2 cells x 3 numbers give at most 12",
    ),
    (
      {"heads": {"layout": {"pooling": "canonical", "cells": 2, "numbers": 10, "size": 40}}},
      r"'heads\.layout\.numbers' is 10; a cell has 9 directions",
    ),
    (
      {"heads": {"layout": {"pooling": "statistics", "numbers": 16, "size": 12}}},
      r"'heads\.layout\.size' is 12, and heads\.layout\.numbers 16.*Give both the same",
    ),
    (
      {"model": {"preset": "none", "local": 8}, "training": {"steps": 0}},
      r"'model\.local' is 8, and model\.preset is 'none'",
    ),
    (
      {"heads": {"layout": {"pooling": "canonical", "size": 32, "prefixes": (40,)}}},
      r"'heads\.layout\.prefixes' is \(40,\).*below heads\.layout\.size = 32\.",
    ),
    ({"model": {"preset": "none"}}, r"'training\.steps' is 1000.*'none'.*training\.steps = 0"),
    ({"mesh": {"tensor": 0}}, r"'mesh\.tensor' is 0"),
    ({"mask": {"scale": (0.2, 0.1)}}, r"'mask\.scale' is \(0\.2, 0\.1\).*smaller first"),
    ({"mask": {"aspect": (1.0,)}}, r"'mask\.aspect' is \(1\.0,\)"),
    ({"telemetry": {"profile": (5,)}}, r"'telemetry\.profile' is \(5,\)"),
  ],
)
def test_values_that_do_not_go_together_are_refused(content: Any, complaint: str) -> None:
  with pytest.raises(ConfigError) as error:
    resolve(content)
  assert re.search(complaint, str(error.value)) and "\n" not in str(error.value)


def test_a_canonical_layout_may_be_cut_anywhere_and_a_network_may_have_one() -> None:
  head = {"pooling": "canonical", "cells": 3, "numbers": 2, "size": 17, "prefixes": (1, 5, 16)}
  assert resolve({"heads": {"layout": head}}).heads["layout"].prefixes == (1, 5, 16)
