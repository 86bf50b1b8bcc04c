"""The logger: five levels, console and file, nothing twice."""

from __future__ import annotations

import logging

import pytest

from gossamer import ArgumentError, setup_logger


@pytest.fixture(autouse=True)
def untouched():
    logger = logging.getLogger("gossamer")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    for handler in list(logger.handlers):
        if handler not in before[0]:
            logger.removeHandler(handler)
            handler.close()
    logger.setLevel(before[1])
    logger.propagate = before[2]


LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_lets_through_itself_and_what_is_graver(level, tmp_path, capsys):
    path = tmp_path / "deep" / "er" / "gossamer.log"
    logger = setup_logger(level, path)
    assert logger is logging.getLogger("gossamer")
    for name in LEVELS:
        logging.getLogger("gossamer.part").log(getattr(logging, name), "a %s line", name)
    expected = [f"a {name} line" for name in LEVELS[LEVELS.index(level) :]]
    for text in (capsys.readouterr().err, path.read_text()):
        lines = text.splitlines()
        assert [line.partition(": ")[2] for line in lines] == expected
        assert all("gossamer.part" in line for line in lines)


@pytest.mark.parametrize("level", ["LOUD", "", "info", 10, None])
def test_another_level_is_refused_by_name(level):
    before = list(logging.getLogger("gossamer").handlers)
    with pytest.raises(ValueError, match="DEBUG, INFO, WARNING, ERROR, CRITICAL") as caught:
        setup_logger(level)
    assert isinstance(caught.value, ArgumentError)
    assert logging.getLogger("gossamer").handlers == before


def test_called_again_it_replaces_what_it_set_up(tmp_path, capsys):
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    setup_logger("INFO", first)
    setup_logger("INFO", first)
    logger = setup_logger("DEBUG", second)
    logger.debug("once")
    assert capsys.readouterr().err.count("once") == 1
    assert first.read_text() == ""
    assert second.read_text().count("once") == 1
    setup_logger("INFO")
    logger.info("console only")
    assert "console only" not in second.read_text()
    assert capsys.readouterr().err.count("console only") == 1


def test_handlers_of_the_application_stay(capsys):
    mine = logging.NullHandler()
    logger = logging.getLogger("gossamer")
    logger.addHandler(mine)
    setup_logger("INFO")
    setup_logger("ERROR")
    assert mine in logger.handlers
    assert sum(type(handler) is logging.StreamHandler for handler in logger.handlers) == 1
    logger.removeHandler(mine)


def test_a_file_is_appended_to(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    setup_logger("INFO", str(path)).info("after é")
    assert path.read_text(encoding="utf-8").startswith("before\n")
    assert path.read_text(encoding="utf-8").endswith("after é\n")
