"""SageMaker endpoints as a target: versions as production variants with weights, or as a shadow variant.

For deployments to AWS, by boto3 alone. A version is brought in by updating the endpoint to a configuration
with both versions, the new one at weight 0: SageMaker starts its instances beside those that serve, and moves
over only when they are well. It is asked its golden rows by ``TargetVariant``, then gets its share by weight.

SageMaker makes one change at a time. What cannot be done while it is at it raises
:class:`~airflow_provider_xops.errors.UnavailableError`, and is done when it is called again.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_xops.errors import RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import recorded_version
from airflow_provider_xops.serving.targets._sagemaker_aws import Clients, EndpointNow, SageMaker, busy
from airflow_provider_xops.serving.targets._sagemaker_configs import Configs, tags_of
from airflow_provider_xops.serving.targets._sagemaker_figures import figures
from airflow_provider_xops.serving.targets._sagemaker_invoke import invoke
from airflow_provider_xops.serving.targets._sagemaker_parts import (
    CONTAINER,
    Names,
    SageMakerSettings,
    upload_model,
    variant_of,
    version_of,
)
from airflow_provider_xops.serving.targets.base import Answer, Observation, Readiness, ServingBackend

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SageMakerBackend", "SageMakerSettings"]

log = logging.getLogger(__name__)

SHARE_WITHIN = 1e-6


class SageMakerBackend(ServingBackend):
    """One real-time endpoint, which serves one alias of one model.

    :param settings: the endpoint, and what its models run on.
    :param clients: from :func:`~airflow_provider_xops.serving.targets._sagemaker_aws.plain_clients`, or from
        an AWS connection.

    Example::

        settings = SageMakerSettings(endpoint="late-arrival", image_uri=image, role_arn=role,
                                     model_data="s3://models/xops")
        backend = SageMakerBackend(lake, client, settings=settings, clients=plain_clients("eu-central-1"))
        deploy(lake, client, backend, model=model, steps=[0.1, 1.0], decide=decide, actor=actor, clock=clock)

    What it does not do: it registers no autoscaling, makes no role and no image, and waits for no update at
    the end of a deployment (SageMaker ends it by itself, and goes back by itself if it fails). A shadow
    cannot be asked golden rows once it is one, so it is asked before.
    """

    kind: ClassVar[str] = "sagemaker"
    supports_shadow: ClassVar[bool] = True

    def __init__(
        self, lake: Lake, client: RegistryClient, *, settings: SageMakerSettings, clients: Clients
    ) -> None:
        self._lake = lake
        self._client = client
        self._settings = settings
        self._clients = clients
        self._aws = SageMaker(clients, settings.endpoint)
        self._names = Names(settings.endpoint)
        self._configs = Configs(self._aws, self._names, settings)

    @property
    def endpoint(self) -> str:
        """The region and the endpoint's name."""
        return f"{self._clients.sagemaker.meta.region_name}/{self._settings.endpoint}"

    def prepare(self, deployment: Deployment, model: ModelVersion) -> None:
        """Have the endpoint updated to hold the version too, at weight 0; a new endpoint holds it alone.

        :raises ModelError: ``model.digest_mismatch``: nothing was sent to AWS.
        :raises UnavailableError: ``unavailable.endpoint_busy``, ``unavailable.aws``.
        :raises RegistryError: ``registry.endpoint_failed``, ``registry.aws_*``.
        """
        model = recorded_version(self._lake, model)
        now = self._aws.now()
        if now is None:
            self._configs.sweep(None)
            self._make_model(model)
            alone = self._names.config(deployment, "alone")
            self._configs.make(alone, deployment, [self._configs.variant(model, 1.0)], before="")
            self._make_endpoint(alone)
            return
        if any(self._names.is_of(config, deployment) for config in (now.config, now.pending)):
            return
        self._see_that_it_can_change(now)
        if variant_of(model) in now.weights:
            # It was kept when its successor came: weights alone bring it back.
            return
        self._configs.sweep(now)
        self._make_model(model)
        both = self._names.config(deployment, "both")
        variants = [*self._configs.serving(now), self._configs.variant(model, 0.0)]
        self._configs.make(both, deployment, variants, like=self._aws.config(now.config), before=now.config)
        self._update(both)

    def ready(self, deployment: Deployment, model: ModelVersion) -> Readiness:
        """Whether the endpoint serves with the version's instances in it."""
        now = self._aws.now()
        found = self._state(now)
        if now is None or not found.ready:
            return found
        variant = variant_of(model)
        if variant not in now.weights and variant not in now.shadows:
            reason = now.reason or "the endpoint was changed by somebody else"
            return Readiness(ready=False, failed=True, reason=f"the update was undone: {reason}")
        have, wanted = now.instances.get(variant, (None, None))
        if have is not None and wanted is not None and have < wanted:
            return Readiness(ready=False, reason=f"{have} of {wanted} instances run")
        return Readiness(ready=True, replicas=have or 1)

    def ask(
        self, model: ModelVersion, frame: pd.DataFrame, *, alias: str, version: int | None
    ) -> tuple[Answer, ...]:
        """Ask the endpoint once; a version by its variant, whatever its weight. Nobody answers for a version
        that is only a shadow."""
        variant = None
        if version is not None:
            variant = variant_of(model)
            now = self._aws.now()
            if now is not None and variant in now.shadows:
                return ()
        return (invoke(self._clients, self._settings.endpoint, frame, variant=variant),)

    def shift(self, deployment: Deployment, model: ModelVersion, weight: float) -> None:
        """Set the weights; the other variants share the rest as they did before the deployment.

        :raises UnavailableError: ``unavailable.endpoint_busy``, ``unavailable.aws``.
        """
        now = self._present()
        if deployment.settings.get("role") == "shadow":
            self._shift_shadow(now, deployment, model, weight)
            return
        wanted = self._wanted(now, deployment, model, weight)
        if _same(now.desired, wanted):
            return
        self._see_that_it_can_change(now)
        self._set_weights(wanted)

    def settled(self, deployment: Deployment, model: ModelVersion, weight: float) -> Readiness:
        """Whether the endpoint serves with these weights."""
        now = self._aws.now()
        found = self._state(now)
        if now is None or not found.ready:
            return found
        variant = variant_of(model)
        if deployment.settings.get("role") == "shadow":
            there = variant in now.shadows and self._shadow_config(deployment, weight) == now.config
            reason = "" if there else f"the shadow is not there{': ' if now.reason else ''}{now.reason}"
            return Readiness(ready=there, failed=not there, reason=reason, replicas=int(there))
        share = now.shares().get(variant, 0.0)
        if abs(share - weight) > SHARE_WITHIN:
            return Readiness(ready=False, reason=f"it has {share:g} of the requests")
        return Readiness(ready=True, replicas=1)

    def serving(self, model: str, alias: str) -> dict[int, float]:
        """The versions and their shares, as the endpoint has them now; variants made elsewhere are left
        out."""
        now = self._aws.now()
        if now is None or now.status in ("Creating", "Deleting", "Failed", "OutOfService"):
            return {}
        named = {version_of(name): share for name, share in now.shares().items() if share > 0}
        return {version: share for version, share in named.items() if version is not None}

    def mark(self, deployment: Deployment | None, *, as_of: datetime) -> Any:
        """The moment: CloudWatch keeps the rest."""
        return as_of.isoformat()

    def observe(self, deployment: Deployment | None, *, since: Any, as_of: datetime) -> Observation | None:
        """CloudWatch's figures of the variants."""
        now = self._aws.now()
        if now is None:
            return None
        variants, begin = [*now.weights, *now.shadows], datetime.fromisoformat(since)
        return figures(self._clients, self._settings.endpoint, variants, since=begin, as_of=as_of)

    def finish(self, deployment: Deployment, model: ModelVersion, *, keep_previous: bool) -> None:
        """Keep the previous version's instances at weight 0, or have the endpoint updated to the version
        alone; then delete configurations and models that nothing uses.

        :raises UnavailableError: ``unavailable.endpoint_busy``, ``unavailable.aws``.
        """
        now = self._present()
        variant = variant_of(model)
        alone = self._names.config(deployment, "alone")
        if not keep_previous and set(now.weights) != {variant} and alone != now.pending:
            self._see_that_it_can_change(now)
            config = self._aws.config(now.config) or {}
            before = self._configs.before(deployment)
            mine = [
                {**each, "InitialVariantWeight": 1.0}
                for each in config.get("ProductionVariants", [])
                if each["VariantName"] == variant
            ]
            self._configs.make(
                alone, deployment, mine, like=config, before=before[0] if before else now.config
            )
            self._update(alone)
            return
        self._configs.sweep(now)

    def abort(self, deployment: Deployment, model: ModelVersion) -> None:
        """The weights as before at once, then the configuration as before; an endpoint that was made for this
        deployment is deleted.

        :raises UnavailableError: ``unavailable.endpoint_busy``: the next part is done when called again.
        """
        now = self._aws.now()
        before = self._configs.before(deployment)
        variant = variant_of(model)
        if now is None:
            self._make_again(before, deployment, variant)
            return
        if now.status == "Deleting":
            raise busy(self._settings.endpoint, now.status)
        ours = any(self._names.is_of(config, deployment) for config in (now.config, now.pending))
        if before is None or not (ours or now.dead):
            back = self._configs.rest(now, variant, deployment)
            if back and now.desired.get(variant, 0.0) > 0 and not now.dead:
                # The share that it was given last may still be on its way to it.
                self._see_that_it_can_change(now)
                self._set_weights({**back, variant: 0.0})
            else:
                self._configs.sweep(now)
            return
        if not before[0]:
            self._end(now)
            return
        if now.status == "Failed":
            # Of a failed endpoint SageMaker accepts only that it is deleted.
            self._configs.note_remade(deployment)
            self._aws.delete("delete_endpoint", EndpointName=self._settings.endpoint)
            raise busy(self._settings.endpoint, "Deleting")
        if not now.settled and not now.dead:
            raise busy(self._settings.endpoint, now.status)
        back = self._configs.rest(now, variant, deployment)
        if now.settled and back and now.desired.get(variant, 0.0) > 0:
            # An update takes minutes, in which the candidate would keep its share.
            self._set_weights({**back, variant: 0.0})
            raise busy(self._settings.endpoint, "taking the weights back")
        self._update(self._configs.to_go_back_to(before[0], deployment, variant))

    def _make_again(self, before: tuple[str, bool] | None, deployment: Deployment, variant: str) -> None:
        if before is None or not before[1]:
            self._configs.sweep(None)
            return
        config = self._configs.to_go_back_to(before[0], deployment, variant)
        log.info("The endpoint %s is made again with %s.", self._settings.endpoint, config)
        self._make_endpoint(config)

    def _make_endpoint(self, config: str) -> None:
        def is_there() -> bool:
            now = self._aws.now()
            return now is not None and now.config == config

        self._aws.make(
            "create_endpoint",
            is_there,
            EndpointName=self._settings.endpoint,
            EndpointConfigName=config,
            Tags=tags_of(self._settings.tags),
        )

    def _end(self, now: EndpointNow) -> None:
        """Delete an endpoint that nobody needs, also while it is still being made: it costs from then on."""
        log.info("The endpoint %s was made for this deployment: it is deleted.", self._settings.endpoint)
        try:
            self._aws.delete("delete_endpoint", EndpointName=self._settings.endpoint)
        except RegistryError as error:
            if now.settled or now.dead or error.code != "registry.aws_refused":
                raise
            raise busy(self._settings.endpoint, now.status) from None

    def _make_model(self, model: ModelVersion) -> None:
        name = self._names.model(model, self._settings)
        if self._aws.exists(name):
            return
        address = upload_model(self._clients, self._client, model, self._settings)
        network = {"VpcConfig": dict(self._settings.network)} if self._settings.network else {}
        self._aws.make(
            "create_model",
            lambda: self._aws.exists(name),
            ModelName=name,
            PrimaryContainer={
                "Image": self._settings.image_uri,
                "ModelDataUrl": address,
                "Environment": {**CONTAINER, **self._settings.environment},
            },
            ExecutionRoleArn=self._settings.role_arn,
            Tags=tags_of({**self._settings.tags, "xops-digest": model.artifact_digest}),
            **network,
        )

    def _shift_shadow(
        self, now: EndpointNow, deployment: Deployment, model: ModelVersion, weight: float
    ) -> None:
        name = self._shadow_config(deployment, weight)
        if name in (now.config, now.pending):
            return
        self._see_that_it_can_change(now)
        variant = variant_of(model)
        serving = [each for each in self._configs.serving(now) if each["VariantName"] != variant]
        before = self._configs.before(deployment)
        self._configs.make(
            name,
            deployment,
            serving,
            shadows=[self._configs.variant(model, weight)],
            like=self._aws.config(now.config),
            before=before[0] if before else now.config,
        )
        self._update(name)

    def _shadow_config(self, deployment: Deployment, weight: float) -> str:
        return self._names.config(deployment, f"shadow-{round(1e6 * weight)}")

    def _wanted(
        self, now: EndpointNow, deployment: Deployment, model: ModelVersion, weight: float
    ) -> dict[str, float]:
        variant = variant_of(model)
        rest = self._configs.rest(now, variant, deployment)
        if not rest:
            return {name: float(name == variant) for name in now.weights}
        return {name: rest.get(name, 0.0) * (1 - weight) for name in now.weights} | {variant: weight}

    def _set_weights(self, weights: dict[str, float]) -> None:
        self._aws.do(
            "update_endpoint_weights_and_capacities",
            EndpointName=self._settings.endpoint,
            DesiredWeightsAndCapacities=[
                {"VariantName": name, "DesiredWeight": weight} for name, weight in weights.items()
            ],
        )

    def _update(self, config: str) -> None:
        update = {"DeploymentConfig": dict(self._settings.update)} if self._settings.update else {}
        self._aws.do(
            "update_endpoint",
            EndpointName=self._settings.endpoint,
            EndpointConfigName=config,
            **update,
        )
        log.info("The endpoint %s is being updated to %s.", self._settings.endpoint, config)

    def _present(self) -> EndpointNow:
        now = self._aws.now()
        if now is None:
            raise RegistryError(
                f"there is no SageMaker endpoint {self._settings.endpoint}",
                code="registry.endpoint_failed",
                why="somebody deleted it in the middle of the deployment",
                todo="deploy again: it is made anew",
            )
        return now

    def _see_that_it_can_change(self, now: EndpointNow) -> None:
        if now.dead:
            raise RegistryError(
                f"the SageMaker endpoint {self._settings.endpoint} is {now.status}",
                code="registry.endpoint_failed",
                why=now.reason,
                todo="look at its page in SageMaker; a failed endpoint must be deleted there",
            )
        if not now.settled:
            raise busy(self._settings.endpoint, now.status)

    def _state(self, now: EndpointNow | None) -> Readiness:
        if now is None:
            return Readiness(ready=False, failed=True, reason="there is no such endpoint")
        if now.dead:
            return Readiness(ready=False, failed=True, reason=f"the endpoint is {now.status}: {now.reason}")
        return Readiness(ready=now.settled, reason="" if now.settled else f"the endpoint is {now.status}")


def _same(one: dict[str, float] | Any, other: dict[str, float]) -> bool:
    names = {*one, *other}
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) <= SHARE_WITHIN for name in names)
