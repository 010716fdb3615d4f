"""Plans: what they name, what they leave out, and every mistake with its place and way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from skill_contract.model import ContractError
from skill_contract.spec import Demonstration, PromptTemplate, TeacherWeights
from skill_trainer.compare.plan import BUILT_IN, chains, config_of, read_plan
from tests.trainer.compare.conftest import skill

MODEL = Path("/models/tiny")


def test_built_in_variants_are_one_change_each(plan_file):
    plan = read_plan(plan_file(variants=list(BUILT_IN)))
    methods = {
        variant.name: config_of(plan, MODEL, plan.skills[0], variant, 7).method for variant in plan.variants
    }  # fmt: skip
    assert len({method.dump_json() for method in methods.values()}) == len(BUILT_IN)
    assert methods["sft"].type == "SFT"
    assert methods["sdft-frozen"].sdft.teacher.weights is TeacherWeights.FROZEN
    assert methods["paper-template"].sdft.prompt.template is PromptTemplate.PAPER
    assert methods["shuffled-demonstration"].sdft.prompt.demonstration is Demonstration.SHUFFLED
    assert {method.seed for method in methods.values()} == {7}
    assert {method.steps for method in methods.values()} == {2}


def test_a_variant_of_ones_own_overrides_what_all_have(plan_file):
    plan = read_plan(plan_file(variants=[{"name": "long", "settings": ["method.steps=9"]}]))
    assert config_of(plan, MODEL, plan.skills[0], plan.variants[0], 1).method.steps == 9


def test_paths_are_relative_to_the_plan(plan_file):
    path = plan_file()
    plan = read_plan(path)
    assert plan.skills[0].train == str(path.parent / "data" / "say.jsonl")
    assert plan.retention[0].uri == str(path.parent / "data" / "kept.jsonl")


def test_addresses_of_a_store_stay_as_they_are(plan_file):
    plan = read_plan(plan_file(retention=[{"name": "kept", "uri": "s3://bucket/kept.jsonl"}]))
    assert plan.retention[0].uri == "s3://bucket/kept.jsonl"


def test_runs_come_seed_by_seed(plan_file):
    """So that a comparison that is stopped early has something of every variant."""
    names = [chain[0].update.uid for chain in chains(read_plan(plan_file()), MODEL)]
    assert names[:5] == ["sdft-ema/say/1", "sft/say/1", "sdft-ema/sing/1", "sft/sing/1", "sdft-ema/say/2"]
    (first, *_) = chains(read_plan(plan_file(sequence=True)), MODEL)
    assert [config.skill.name for config in first] == ["say", "sing"]


def test_only_some_variants(plan_file):
    plan = read_plan(plan_file())
    assert [variant.name for variant in plan.only(["sft"]).variants] == ["sft"]
    assert plan.only([]) == plan
    with pytest.raises(ContractError, match="--only jsd: the plan has the variants sdft-ema, sft"):
        plan.only(["jsd"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"variants": ["sdtf"]}, r"variants: .*'sdtf' is no built-in variant \(sdft-ema, .*write \{name: …"),
        ({"variants": []}, "variants: .*at least 1 item"),
        ({"variants": "sft"}, "variants: .*valid tuple"),
        ({"variants": ["sft", "sft"]}, "variants need different names, but 'sft' stands there twice"),
        ({"seeds": [1, 1]}, "seeds need different names, but 1 stands there twice"),
        ({"retention": [{"name": "say", "uri": "a.jsonl"}]}, "skills and retention suites .* 'say' stands there twice"),
        ({"retention": []}, "retention: .*at least 1 item"),
        ({"skils": []}, r"skils: Extra inputs are not permitted"),
        ({"skills": [{"name": "say", "train": "a.jsonl"}]}, r"skills\.0\.heldOut: Field required"),
        ({"skills": [{**skill("say"), "heldOut": {"uri": "a", "grader": "exactly"}}]}, r"heldOut\.grader: .*'exactly'"),
    ],
)
def test_mistakes_are_named_with_their_place(plan_file, parts, message):
    with pytest.raises(ContractError, match=rf"plan\.yaml: .*{message}"):
        read_plan(plan_file(**parts))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method.stepps=3", r"variant mine: method\.stepps: Extra inputs"),
        ("method.steps=0", r"variant mine: method\.steps: .*greater than or equal to 1.*got 0"),
        ("method.steps", r"method\.steps: write PATH=VALUE, such as method\.steps=40"),
        ("data.train=x.jsonl", r"variant mine: data\.train=x\.jsonl: only method\.… and gates\.… are settings"),
        ("method.steps.more=1", r"method\.steps\.more=1: steps has no settings below it"),
    ],
)
def test_settings_that_do_not_exist_name_their_variant(plan_file, setting, message):
    plan = read_plan(plan_file(variants=[{"name": "mine", "settings": [setting]}]))
    with pytest.raises(ContractError, match=message):
        chains(plan, MODEL)


def test_a_variant_rehearses_what_the_plan_names_and_the_skills_before(plan_file):
    variants = ["sft", {"name": "again", "rehearsal": 0.25}]
    skills = [skill("say"), skill("sing")]
    plan = read_plan(plan_file(variants=variants, skills=skills, rehearsed=["old.jsonl"], sequence=True, seeds=[1]))
    plain, again = chains(plan, MODEL)
    assert [config.data.rehearsal for config in plain] == [None, None]
    (first, second) = (config.data.rehearsal for config in again)
    assert first
    assert second
    assert ([Path(uri).name for uri in first.uris], first.share) == (["old.jsonl"], 0.25)
    assert [Path(uri).name for uri in second.uris] == ["old.jsonl", Path(plan.skills[0].train).name]


def test_a_rehearsal_of_nothing_is_refused(plan_file):
    plan = read_plan(plan_file(variants=[{"name": "again", "rehearsal": 0.25}]))
    with pytest.raises(ContractError, match=r"variant again: rehearsal 0\.25: there is nothing to rehearse: name"):
        chains(plan, MODEL)


def test_what_is_no_plan(tmp_path):
    with pytest.raises(ContractError, match="there is no such plan"):
        read_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("skills: [")
    with pytest.raises(ContractError, match="is no YAML: while parsing"):
        read_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(["a"]))
    with pytest.raises(ContractError, match=r"plan\.yaml: \(document\): .*valid dictionary"):
        read_plan(tmp_path / "plan.yaml")
