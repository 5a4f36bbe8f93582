"""Tables of a single rank, which has nobody to send ids to, or rows: they stay where they are.

TorchRec's own way makes a tensor of the host's numbers in each step, for which a card is waited for, and spends more
time on its launches than the look-up itself takes.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

with warnings.catch_warnings():
    # As in models/layers/embeddings.py: the CPU build warns, on import, of kernels that it does not have.
    warnings.simplefilter("ignore")
    from torchrec import EmbeddingBagCollection, KeyedJaggedTensor
    from torchrec.distributed.embedding_sharding import BaseEmbeddingDist, BaseSparseFeaturesDist, EmbeddingSharding
    from torchrec.distributed.embedding_types import ShardingType
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder, ShardedEmbeddingBagCollection
    from torchrec.distributed.sharding.tw_sharding import TwPooledEmbeddingSharding
    from torchrec.distributed.types import Awaitable, NoWait, ParameterSharding, ShardingEnv


class OneRankSharder(EmbeddingBagCollectionSharder):  # type: ignore[misc] # torchrec is untyped
    """TorchRec's sharder, whose tables keep their ids to themselves where there is one rank."""

    def shard(
        self,
        module: EmbeddingBagCollection,
        params: dict[str, ParameterSharding],
        env: ShardingEnv,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> ShardedEmbeddingBagCollection:
        """As the base class, by way of `_TablesOfARank`."""
        return _TablesOfARank(
            module=module,
            table_name_to_parameter_sharding=params,
            env=env,
            fused_params=self.fused_params,
            device=device,
            qcomm_codecs_registry=self.qcomm_codecs_registry,
            module_fqn=module_fqn,
        )


class _TablesOfARank(ShardedEmbeddingBagCollection):  # type: ignore[misc] # torchrec is untyped
    @classmethod
    def create_embedding_bag_sharding(
        cls,
        sharding_infos: list[Any],
        env: ShardingEnv,
        device: torch.device | None = None,
        permute_embeddings: bool = False,  # noqa: FBT001, FBT002 torchrec's signature
        qcomm_codecs_registry: dict[str, Any] | None = None,
    ) -> EmbeddingSharding:
        """Whole tables of one rank without an exchange; all else as the base class has it."""
        whole = sharding_infos[0].param_sharding.sharding_type == ShardingType.TABLE_WISE.value
        if whole and env.world_size == 1:
            return _WholeTables(sharding_infos, env, device)
        return super().create_embedding_bag_sharding(
            sharding_infos, env, device, permute_embeddings, qcomm_codecs_registry
        )


class _WholeTables(TwPooledEmbeddingSharding):  # type: ignore[misc] # torchrec is untyped
    def create_input_dist(self, device: torch.device | None = None) -> BaseSparseFeaturesDist:
        """Of the ids."""
        del device
        return _IdsStay()

    def create_output_dist(self, device: torch.device | None = None) -> BaseEmbeddingDist:
        """Of the rows."""
        del device
        return _RowsStay()


class _IdsStay(BaseSparseFeaturesDist):  # type: ignore[misc] # torchrec is untyped
    def forward(self, sparse_features: KeyedJaggedTensor) -> Awaitable:
        return NoWait(NoWait(sparse_features))


class _RowsStay(BaseEmbeddingDist):  # type: ignore[misc] # torchrec is untyped
    def forward(self, local_embs: Tensor, sharding_ctx: object = None) -> Awaitable:
        del sharding_ctx
        return NoWait(local_embs)
