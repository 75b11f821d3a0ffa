"""Endpoint configurations: made, found again, gone back to, and cleared away.

For the SageMaker target. A configuration cannot be changed once it is made; a deployment makes one for each
stage, and notes on it which one served before.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from airflow_provider_xops.records import Deployment, ModelVersion
from airflow_provider_xops.serving.targets._sagemaker_aws import EndpointNow, SageMaker
from airflow_provider_xops.serving.targets._sagemaker_parts import (
    BEFORE_TAG,
    DEPLOYMENT_TAG,
    REMADE_TAG,
    Names,
    SageMakerSettings,
    variant_of,
    version_of,
)

__all__ = ["Configs"]

log = logging.getLogger(__name__)

# Of the configuration that served before, what a new one keeps.
_KEPT = (
    "DataCaptureConfig",
    "KmsKeyId",
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
    "MetricsConfig",
)


class Configs:
    """The configurations of one endpoint."""

    def __init__(self, aws: SageMaker, names: Names, settings: SageMakerSettings) -> None:
        self._aws = aws
        self._names = names
        self._settings = settings

    def make(
        self,
        name: str,
        deployment: Deployment,
        variants: Sequence[Mapping[str, Any]],
        *,
        shadows: Sequence[Mapping[str, Any]] = (),
        like: Mapping[str, Any] | None = None,
        before: str,
    ) -> None:
        """Make a configuration, unless it is there.

        :param like: the configuration whose other properties (capture of requests, keys) it keeps.
        :param before: the one that served before the deployment; empty: the endpoint did not exist.
        """
        if self._aws.config(name) is not None:
            return
        tags = {**self._settings.tags, DEPLOYMENT_TAG: deployment.record_id[:32], BEFORE_TAG: before}
        kept = {key: like[key] for key in _KEPT if like and like.get(key)}
        if shadows:
            kept["ShadowProductionVariants"] = [dict(each) for each in shadows]
        self._aws.make(
            "create_endpoint_config",
            lambda: self._aws.config(name) is not None,
            EndpointConfigName=name,
            ProductionVariants=[dict(each) for each in variants],
            Tags=tags_of(tags),
            **kept,
        )

    def variant(self, model: ModelVersion, weight: float) -> dict[str, Any]:
        """A version as a variant that has instances of its own."""
        settings = self._settings
        made: dict[str, Any] = {
            "VariantName": variant_of(model),
            "ModelName": self._names.model(model, settings),
            "InitialVariantWeight": weight,
        }
        if "ServerlessConfig" not in settings.variant:
            made |= {
                "InstanceType": settings.instance_type,
                "InitialInstanceCount": settings.instance_count,
            }
        return made | dict(settings.variant)

    def serving(self, now: EndpointNow) -> list[dict[str, Any]]:
        """The variants that answer callers at this moment, with the shares and instances they have."""
        config = self._aws.config(now.config) or {}
        shares, found = now.shares(), []
        for each in config.get("ProductionVariants", []):
            share = shares.get(each["VariantName"], 0.0)
            if share <= 0:
                continue
            instances = now.instances.get(each["VariantName"], (None, None))[1]
            scaled = {"InitialInstanceCount": instances} if instances and "InstanceType" in each else {}
            found.append({**each, "InitialVariantWeight": share, **scaled})
        return found

    def rest(self, now: EndpointNow, candidate: str, deployment: Deployment) -> dict[str, float]:
        """The other variants, and how they shared the requests before the deployment; the shares sum to 1.

        Empty: no other variant is known to have served.
        """
        others = [name for name in now.weights if name != candidate]
        if self._names.is_of(now.config, deployment):
            variants = (self._aws.config(now.config) or {}).get("ProductionVariants", [])
            found = {
                each["VariantName"]: float(each.get("InitialVariantWeight") or 0)
                for each in variants
                if each["VariantName"] in others
            }
        else:
            previous = deployment.previous.version if deployment.previous is not None else None
            found = {name: float(version_of(name) == previous) for name in others}
            if not any(found.values()):
                # The ledger's champion is not there: what answers at this moment does so further.
                found = {name: now.desired.get(name, 0.0) for name in others}
            if not any(found.values()) and previous is not None and len(others) == 1:
                # It has given everything to the candidate.
                found = {others[0]: 1.0}
        total = sum(found.values())
        return {name: weight / total for name, weight in found.items()} if total else {}

    def of(self, deployment: Deployment) -> list[str]:
        """The names of the configurations that a deployment has made."""
        prefix = self._names.config(deployment, "")
        return self._aws.names("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", prefix)

    def before(self, deployment: Deployment) -> tuple[str, bool] | None:
        """What served before a deployment (empty: nothing), and whether the endpoint was deleted to bring
        that back; None: the deployment has made no configuration."""
        for name in self.of(deployment):
            tags = self._tags(name)
            if BEFORE_TAG in tags:
                return tags[BEFORE_TAG], REMADE_TAG in tags
        return None

    def note_remade(self, deployment: Deployment) -> None:
        """Note that the endpoint is deleted only to be made again with what served before."""
        for name in self.of(deployment):
            if (config := self._aws.config(name)) is not None:
                arn = config["EndpointConfigArn"]
                self._aws.do("add_tags", ResourceArn=arn, Tags=tags_of({REMADE_TAG: "true"}))

    def to_go_back_to(self, before: str, deployment: Deployment, candidate: str) -> str:
        """The name of a configuration that serves as before: that one, or its like if somebody deleted it."""
        if self._aws.config(before) is not None:
            return before
        name = self._names.config(deployment, "back")
        both = self._aws.config(self._names.config(deployment, "both")) or {}
        variants = [each for each in both.get("ProductionVariants", []) if each["VariantName"] != candidate]
        self.make(name, deployment, variants, like=both, before=before)
        return name

    def sweep(self, now: EndpointNow | None) -> None:
        """Delete what was made for this endpoint and serves nothing any more; nothing while it is changed."""
        if now is not None and not now.settled:
            return
        kept: set[str] = set() if now is None else {now.config, now.pending}
        for name in self._listed("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", kept):
            self._aws.delete("delete_endpoint_config", EndpointConfigName=name)
        used: set[str] = set()
        for name in kept:
            config = (self._aws.config(name) if name else None) or {}
            for kind in ("ProductionVariants", "ShadowProductionVariants"):
                used |= {each["ModelName"] for each in config.get(kind, []) if each.get("ModelName")}
        for name in self._listed("list_models", "Models", "ModelName", used):
            self._aws.delete("delete_model", ModelName=name)

    def _listed(self, operation: str, kind: str, key: str, kept: Collection[str]) -> list[str]:
        found = self._aws.names(operation, kind, key, self._names.prefix)
        gone = [name for name in found if name not in kept]
        if gone:
            log.info("Deleting what the endpoint %s needs no more: %s.", self._aws.endpoint, ", ".join(gone))
        return gone

    def _tags(self, name: str) -> dict[str, str]:
        config = self._aws.config(name)
        return self._aws.tags(config["EndpointConfigArn"]) if config is not None else {}


def tags_of(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as AWS takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
