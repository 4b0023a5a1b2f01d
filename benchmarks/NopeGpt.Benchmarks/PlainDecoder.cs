using NopeGpt.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;
using Linear = TorchSharp.Modules.Linear;

namespace NopeGpt.Benchmarks;

/// <summary>The same network as <see cref="Decoder"/> as one writes it with TorchSharp's own modules: keys and values repeated for every
/// query head, RMSNorm and rotations by hand, all logits at once, a cache that grows by `cat`. The measure for what our forms bring.</summary>
internal sealed class PlainDecoder : Module<Tensor, Tensor>
{
    private readonly ModelConfig _config;
    private readonly Embedding token_embeddings;
    private readonly Embedding? position_embeddings;
    private readonly ModuleList<PlainBlock> layers;
    private readonly Module<Tensor, Tensor> norm;

    /// <param name="like">Its weights are copied.</param>
    public PlainDecoder(Decoder like)
        : base(nameof(PlainDecoder))
    {
        _config = like.Config;
        token_embeddings = Embedding(_config.VocabularySize, _config.EmbeddingDimensions);
        if (_config.Positions == Positions.Learned) position_embeddings = Embedding(_config.ContextLength, _config.EmbeddingDimensions);
        layers = new([.. Enumerable.Range(0, _config.NumDecoderLayers).Select(_ => new PlainBlock(_config))]);
        norm = Norm(_config);
        RegisterComponents();
        Dictionary<string, Parameter> mine = named_parameters().ToDictionary(p => p.name, p => p.parameter);
        using var quiet = no_grad();
        foreach ((string name, Tensor parameter) in like.Parameters())
            mine[name.Replace("decoder.", "").Replace("stage1.", "").Replace("stage2.", "").Replace("token_classifier.", "")].copy_(parameter);
    }

    public override Tensor forward(Tensor tokens_BT) => functional.linear(norm.call(Hidden(tokens_BT, null)), token_embeddings.weight!);

    public Tensor Loss(Tensor tokens_BT, Tensor targets_BT) =>
        functional.cross_entropy(call(tokens_BT).view(-1, _config.VocabularySize), targets_BT.view(-1));

    /// <summary>Logits of the last position, [B, V], after the tokens that the cache holds.</summary>
    public Tensor Next(Tensor tokens_BT, PlainCache cache)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x_BTd = Hidden(tokens_BT, cache);
        return functional.linear(norm.call(x_BTd.narrow(1, -1, 1)), token_embeddings.weight!).squeeze(1).MoveToOuterDisposeScope();
    }

    private Tensor Hidden(Tensor tokens_BT, PlainCache? cache)
    {
        long start = cache?.Length ?? 0, count = tokens_BT.shape[1];
        Tensor x_BTd = token_embeddings.call(tokens_BT);
        if (position_embeddings is not null) x_BTd = x_BTd + position_embeddings.call(arange(start, start + count));
        (Tensor Cosine, Tensor Sine)? angles_TE = _config.Positions == Positions.Rope ? Angles(start, count) : null;
        for (int i = 0; i < layers.Count; i++) x_BTd = layers[i].Forward(x_BTd, angles_TE, cache, i);
        return x_BTd;
    }

    private (Tensor Cosine, Tensor Sine) Angles(long start, long count)
    {
        Tensor frequencies_E = tensor((float)_config.RopeTheta).pow(arange(0, _config.HeadDimensions, 2, ScalarType.Float32) / -_config.HeadDimensions);
        Tensor angles_TE = outer(arange(start, start + count, ScalarType.Float32), frequencies_E);
        return (angles_TE.cos(), angles_TE.sin());
    }

    private static Module<Tensor, Tensor> Norm(ModelConfig config) => config.Norm == NopeGpt.Model.Norm.RmsNorm
        ? new PlainRmsNorm(config)
        : LayerNorm([config.EmbeddingDimensions], config.NormEpsilon);

    private sealed class PlainRmsNorm : Module<Tensor, Tensor>
    {
        private readonly double _epsilon;
        private readonly Parameter weight;

        public PlainRmsNorm(ModelConfig config)
            : base(nameof(PlainRmsNorm))
        {
            _epsilon = config.NormEpsilon;
            weight = new(ones(config.EmbeddingDimensions));
            RegisterComponents();
        }

        public override Tensor forward(Tensor x) => x * (x.pow(2).mean([-1], keepdim: true) + _epsilon).rsqrt() * weight;
    }

    private sealed class PlainBlock : Module
    {
        private readonly ModelConfig _config;
        private readonly Module<Tensor, Tensor> norm1;
        private readonly Module<Tensor, Tensor> norm2;
        private readonly Linear q_proj;
        private readonly Linear k_proj;
        private readonly Linear v_proj;
        private readonly Linear out_proj;
        private readonly Linear linear1;
        private readonly Linear linear2;
        private readonly Linear? linear3;

        public PlainBlock(ModelConfig config)
            : base(nameof(PlainBlock))
        {
            _config = config;
            int d = config.EmbeddingDimensions;
            norm1 = Norm(config);
            norm2 = Norm(config);
            q_proj = Linear(d, d, config.LinearBias);
            k_proj = Linear(d, config.KvDimensions, config.LinearBias);
            v_proj = Linear(d, config.KvDimensions, config.LinearBias);
            out_proj = Linear(d, d, config.LinearBias);
            linear1 = Linear(d, config.HiddenDimensions, config.LinearBias);
            linear2 = Linear(config.HiddenDimensions, d, config.LinearBias);
            if (config.Mlp == Mlp.Swiglu) linear3 = Linear(d, config.HiddenDimensions, config.LinearBias);
            RegisterComponents();
        }

        public Tensor Forward(Tensor x_BTd, (Tensor Cosine, Tensor Sine)? angles_TE, PlainCache? cache, int layer)
        {
            Tensor y_BTd = norm1.call(x_BTd);
            Tensor q_BHTD = Rotate(Heads(q_proj.call(y_BTd), _config.NumQHeads), angles_TE);
            Tensor k_BKSD = Rotate(Heads(k_proj.call(y_BTd), _config.NumKvHeads), angles_TE), v_BKSD = Heads(v_proj.call(y_BTd), _config.NumKvHeads);
            if (cache is not null) (k_BKSD, v_BKSD) = cache.Append(layer, k_BKSD, v_BKSD);
            int group = _config.NumQHeads / _config.NumKvHeads;
            if (group > 1) (k_BKSD, v_BKSD) = (k_BKSD.repeat_interleave(group, 1), v_BKSD.repeat_interleave(group, 1));
            Tensor mixed_BHTD = functional.scaled_dot_product_attention(q_BHTD, k_BKSD, v_BKSD, is_casual: x_BTd.shape[1] > 1);
            x_BTd = x_BTd + out_proj.call(mixed_BHTD.transpose(1, 2).reshape(x_BTd.shape));
            y_BTd = norm2.call(x_BTd);
            Tensor hidden_BTh = linear1.call(y_BTd);
            hidden_BTh = _config.Mlp == Mlp.Gelu ? hidden_BTh.gelu(TorchSharp.Modules.GELU.Approximate.tanh) : functional.silu(hidden_BTh);
            if (linear3 is not null) hidden_BTh = hidden_BTh * linear3.call(y_BTd);
            return x_BTd + linear2.call(hidden_BTh);
        }

        private Tensor Heads(Tensor x_BTd, int heads) => x_BTd.view(x_BTd.shape[0], x_BTd.shape[1], heads, _config.HeadDimensions).transpose(1, 2);

        private static Tensor Rotate(Tensor x_BHTD, (Tensor Cosine, Tensor Sine)? angles_TE)
        {
            if (angles_TE is not var (cosine_TE, sine_TE)) return x_BHTD;
            Tensor pairs = x_BHTD.reshape([.. x_BHTD.shape[..3], -1, 2]), even = pairs.select(-1, 0), odd = pairs.select(-1, 1);
            return stack([(even * cosine_TE) - (odd * sine_TE), (even * sine_TE) + (odd * cosine_TE)], -1).flatten(3);
        }
    }
}

/// <summary>Keys and values of all tokens so far, made anew by each token.</summary>
internal sealed class PlainCache(int layers) : IDisposable
{
    private readonly (Tensor Keys, Tensor Values)?[] _layers = new (Tensor, Tensor)?[layers];

    public long Length => _layers[0]?.Keys.shape[2] ?? 0;

    public (Tensor Keys, Tensor Values) Append(int layer, Tensor k_BKTD, Tensor v_BKTD)
    {
        (Tensor Keys, Tensor Values)? old = _layers[layer];
        (Tensor Keys, Tensor Values) grown = old is var (keys, values) ? (cat([keys, k_BKTD], 2), cat([values, v_BKTD], 2)) : (k_BKTD.alias(), v_BKTD.alias());
        _layers[layer] = (grown.Keys.DetachFromDisposeScope(), grown.Values.DetachFromDisposeScope());
        old?.Keys.Dispose();
        old?.Values.Dispose();
        return grown;
    }

    /// <summary>Only the first tokens remain.</summary>
    public void Truncate(long length)
    {
        using DisposeScope scope = NewDisposeScope();
        for (int i = 0; i < _layers.Length; i++)
        {
            if (_layers[i] is not var (keys, values)) continue;
            _layers[i] = (keys.narrow(2, 0, length).clone().DetachFromDisposeScope(), values.narrow(2, 0, length).clone().DetachFromDisposeScope());
            keys.Dispose();
            values.Dispose();
        }
    }

    public void Dispose()
    {
        foreach ((Tensor Keys, Tensor Values)? layer in _layers)
        {
            layer?.Keys.Dispose();
            layer?.Values.Dispose();
        }
    }
}
