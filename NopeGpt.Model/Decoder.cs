using NopeGpt.Model.Native;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

// Shapes: B rows, T tokens of a row, S tokens in reach of the attention, d width of the residual stream, H query heads, K key and
// value heads, G = H / K query heads that share one, D width of a head, V vocabulary, N = B·T tokens.

/// <summary>The NoPE GPT network: a pre-norm decoder without positional embeddings, ids in, logits out. From top to bottom it is
/// embedding, L blocks of grouped causal attention and a SiLU MLP, RMSNorm, and a head tied to the embedding. Names in the state
/// are those of the Python package nope-gpt.</summary>
public sealed class Decoder : Module
{
    /// <summary>A target of this id does not count in the loss.</summary>
    public const int IgnoredTarget = -100;

    // The reference leaves RMSNorm's eps to PyTorch, which takes the type's epsilon (2^-23).
    private const double Epsilon = 1.1920928955078125e-7;

    [ComponentName(Name = "token_embeddings")]
    private readonly Weight _embedding;

    [ComponentName(Name = "decoder")]
    private readonly Stack _stack;

    [ComponentName(Name = "token_classifier")]
    private readonly Classifier _classifier;

    private readonly Generator _dropout;

    /// <summary>A new model. The same seed gives the same parameters on every device.</summary>
    /// <exception cref="ArgumentException">The config has problems; the message names them all.</exception>
    public Decoder(ModelConfig config, ulong seed, Device? device = null)
        : this(config, device, seed)
    {
        using Generator generator = new(seed, CPU);
        Initialise(generator);
        if (device is not null && device.type != DeviceType.CPU) this.to(device);
    }

    private Decoder(ModelConfig config, Device? device, ulong dropoutSeed)
        : base(nameof(Decoder))
    {
        string[] problems = [.. config.Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(config));
        Config = config;
        Device = device ?? CPU;
        _embedding = new(config.VocabularySize, config.EmbeddingDimensions);
        _stack = new(config);
        _classifier = new(config);
        // Another stream than the parameters': their first numbers would be the same.
        _dropout = new(dropoutSeed ^ 0x5DEECE66D, Device);
        RegisterComponents();
    }

    public ModelConfig Config { get; }

    public Device Device { get; }

    /// <summary>The state of the generator that draws the dropout masks. A run that goes on from a checkpoint sets it to draw the same masks.</summary>
    public byte[] DropoutState
    {
        get
        {
            using Tensor state = _dropout.get_state();
            return state.data<byte>().ToArray();
        }
        set
        {
            using Tensor state = tensor(value, ScalarType.Byte);
            _dropout.set_state(state);
        }
    }

    /// <summary>A model whose parameters hold nothing yet, for loading: drawing them would be wasted.</summary>
    internal static Decoder Empty(ModelConfig config, Device? device)
    {
        Decoder model = new(config, device, 0);
        if (device is not null && device.type != DeviceType.CPU) model.to(device);
        return model;
    }

    /// <summary>Draws every parameter.</summary>
    /// <remarks>
    /// | parameter                              | distribution          | why                                                       |
    /// | token_embeddings (and the tied head)   | N(0, 0.02)            | logits start near 0, so the first loss is near ln V       |
    /// | q, k, v projections, linear1           | N(0, 1 / sqrt(d))     | unit variance at any width (LeCun et al. 1998): attention |
    /// |                                        |                       | starts sharp enough to learn from (docs/experiments.md)   |
    /// | out_proj, linear2                      | N(0, 0.02 / sqrt(2L)) | 2L branches add up in the residual stream (GPT-2, 2.3)    |
    /// | norms                                  | 1                     | identity                                                  |
    /// The reference keeps PyTorch's defaults, whose tied head is N(0, 1) and starts at 10 to 100 times ln V.
    /// </remarks>
    private void Initialise(Generator generator)
    {
        const double deviation = 0.02;
        double inside = 1 / Math.Sqrt(Config.EmbeddingDimensions), residual = deviation / Math.Sqrt(2.0 * Config.NumDecoderLayers);
        using (no_grad())
        {
            _embedding.weight.normal_(0, deviation, generator);
            foreach (Block block in _stack.layers)
            {
                foreach (Weight inner in (Weight[])[block.stage1.q_proj, block.stage1.k_proj, block.stage1.v_proj, block.stage2.linear1])
                    inner.weight.normal_(0, inside, generator);
                foreach (Weight output in (Weight[])[block.stage1.out_proj, block.stage2.linear2])
                    output.weight.normal_(0, residual, generator);
                foreach (Weight norm in (Weight[])[block.norm1, block.norm2])
                    norm.weight.fill_(1);
            }
            _classifier.norm.weight.fill_(1);
        }
    }

    /// <summary>Logits of every position.</summary>
    /// <param name="tokens_BT">Ids, int64.</param>
    /// <returns>logits_BTV, float32.</returns>
    public Tensor Forward(Tensor tokens_BT)
    {
        using DisposeScope scope = NewDisposeScope();
        return Logits(Hidden(tokens_BT, null)).MoveToOuterDisposeScope();
    }

    /// <summary>Reads the tokens after those that the cache holds, without gradients.</summary>
    /// <param name="tokens_BT">The new ids, int64: a prompt, a part of one, or one token. As many rows as the cache has.</param>
    /// <returns>logits_BV of the last position.</returns>
    public Tensor Forward(Tensor tokens_BT, KeyValueCache cache) =>
        Forward(tokens_BT, [.. Enumerable.Repeat(tokens_BT.dim() == 2 ? (int)tokens_BT.shape[1] : 0, cache.Rows)], cache);

    /// <summary>Reads a different number of tokens in each row.</summary>
    /// <param name="tokens_BT">The new ids, int64, at the right. Before them stands any id of the vocabulary.</param>
    /// <param name="counts">The tokens of each row, from 0 to T.</param>
    /// <returns>logits_BV of the last position. Those of a row without tokens mean nothing.</returns>
    public Tensor Forward(Tensor tokens_BT, IReadOnlyList<int> counts, KeyValueCache cache)
    {
        cache.Check(Config, tokens_BT, counts);
        using DisposeScope scope = NewDisposeScope();
        using var inference = no_grad();
        int columns = (int)tokens_BT.shape[1];
        int[] unread = [.. counts];
        while (true)
        {
            using DisposeScope chunk = NewDisposeScope();
            int[] usedUp = cache.UsedUp(columns, unread);
            if (usedUp.Length > 0) ReadAgain(usedUp, cache);
            int count = cache.NextChunk(columns, unread);
            int[] now = Array.ConvertAll(unread, u => Math.Max(0, count - (columns - u)));
            Tensor hidden_BTd = Hidden(tokens_BT.narrow(1, tokens_BT.shape[1] - columns, count), cache, now);
            columns -= count;
            if (columns == 0)
                return Logits(hidden_BTd.narrow(1, count - 1, 1)).squeeze(1).MoveToOtherDisposeScope(scope).MoveToOuterDisposeScope();
            for (int r = 0; r < unread.Length; r++) unread[r] -= now[r];
        }
    }

    /// <summary>Mean cross-entropy in nats over the targets that count.</summary>
    /// <param name="tokens_BT">Ids, int64.</param>
    /// <param name="targets_BT">The id that follows each, int64; <see cref="IgnoredTarget"/> is left out.</param>
    /// <returns>A 0-d tensor; 0 where no target counts.</returns>
    public Tensor Loss(Tensor tokens_BT, Tensor targets_BT)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x_Nd = _classifier.norm.Normalise(Hidden(tokens_BT, null)).flatten(0, 1), targets_N = targets_BT.flatten();
        // 1 / count where a target counts, 0 where not.
        Tensor share_N = targets_N.ne(IgnoredTarget).to(ScalarType.Float32);
        share_N.div_(share_N.sum().clamp_(min: 1));
        return HeadLoss(x_Nd, targets_N, share_N).MoveToOuterDisposeScope();
    }

    /// <summary>Cross-entropy in nats of each target, for evaluation.</summary>
    /// <returns>loss_BT, 0 where the target is <see cref="IgnoredTarget"/>.</returns>
    public Tensor LossPerToken(Tensor tokens_BT, Tensor targets_BT)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x_Nd = _classifier.norm.Normalise(Hidden(tokens_BT, null)).flatten(0, 1), targets_N = targets_BT.flatten();
        IEnumerable<Tensor> losses = Chunks(x_Nd.shape[0]).Select(c =>
            functional.cross_entropy(_embedding.Project(x_Nd.narrow(0, c.Start, c.Count)), targets_N.narrow(0, c.Start, c.Count), ignore_index: IgnoredTarget, reduction: Reduction.None));
        return cat([.. losses]).view(targets_BT.shape).MoveToOuterDisposeScope();
    }

    /// <summary>Every trained parameter with its name in the checkpoint. The tied head is the embedding and is not listed again.</summary>
    public IReadOnlyList<(string Name, Tensor Parameter)> Parameters() => [.. named_parameters().Select(p => (p.name, (Tensor)p.parameter))];

    public long CountParameters() => Parameters().Sum(p => p.Parameter.numel());

    protected override void Dispose(bool disposing)
    {
        if (disposing) _dropout.Dispose();
        base.Dispose(disposing);
    }

    /// <summary>Rows whose learned positions are used up go on from place 0 with the newest part of their window.</summary>
    private void ReadAgain(int[] rows, KeyValueCache cache)
    {
        using KeyValueCache anew = cache.Anew(rows.Length);
        Tensor tokens_BT = cache.Newest(rows);
        if (tokens_BT.shape[1] > 0) Forward(tokens_BT, anew);
        cache.Replace(rows, anew);
    }

    private Tensor Hidden(Tensor tokens_BT, KeyValueCache? cache, int[]? counts = null)
    {
        Tensor x_BTd = _embedding.weight.index_select(0, tokens_BT.flatten()).view(tokens_BT.shape[0], tokens_BT.shape[1], -1);
        Generator? dropout = training && Config.Dropout > 0 ? _dropout : null;
        Tensor? mask = cache?.Reserve(tokens_BT, counts!).Mask;
        for (int i = 0; i < _stack.layers.Count; i++) x_BTd = _stack.layers[i].Apply(x_BTd, dropout, cache, i, mask);
        cache?.Advance();
        return x_BTd;
    }

    private Tensor Logits(Tensor x_BTd) => _embedding.Project(_classifier.norm.Normalise(x_BTd));

    /// <summary>The head and its cross-entropy, summed with the given weights, a chunk of tokens at a time. The gradients of both factors
    /// of the head are computed with the loss, so that the logits, the widest tensor of all, are neither kept nor computed twice.
    /// Against one product and cross_entropy this takes two thirds of the time at V = 4096 on a CPU.</summary>
    private Tensor HeadLoss(Tensor x_Nd, Tensor targets_N, Tensor share_N)
    {
        Tensor loss, xGradient_Nd, wGradient_Vd;
        bool backward = x_Nd.requires_grad;
        using (no_grad())
        {
            Tensor weight_Vd = _embedding.weight, target_N1 = targets_N.clamp(min: 0).unsqueeze(1), share_N1 = share_N.unsqueeze(1);
            loss = zeros([], device: x_Nd.device);
            xGradient_Nd = backward ? empty_like(x_Nd) : loss;
            wGradient_Vd = backward ? zeros_like(weight_Vd) : loss;
            foreach ((long start, long count) in Chunks(x_Nd.shape[0]))
            {
                using DisposeScope chunk = NewDisposeScope();
                Tensor x_Cd = x_Nd.narrow(0, start, count), target_C1 = target_N1.narrow(0, start, count), share_C1 = share_N1.narrow(0, start, count);
                Tensor logP_CV = functional.log_softmax(_embedding.Project(x_Cd), -1);
                loss.sub_(logP_CV.gather(1, target_C1).mul_(share_C1).sum());
                if (!backward) continue;
                // The gradient by the logits is share · (softmax - one_hot(target)); the share is applied where it is narrow.
                Tensor error_CV = logP_CV.exp_().scatter_add_(1, target_C1, full_like(share_C1, -1));
                xGradient_Nd.narrow(0, start, count).copy_(error_CV.matmul(weight_Vd)).mul_(share_C1);
                wGradient_Vd.addmm_(error_CV.T, x_Cd.mul(share_C1));
            }
        }
        if (!backward) return loss;
        // This has exactly those gradients, and its own value is taken off again.
        Tensor carrier = x_Nd.flatten().dot(xGradient_Nd.flatten()).add(_embedding.weight.flatten().dot(wGradient_Vd.flatten()));
        return loss.add(carrier.sub(carrier.detach()));
    }

    /// <summary>The tokens in runs whose logits stay in a CPU's cache, or fill a GPU.</summary>
    private IEnumerable<(long Start, long Count)> Chunks(long tokens)
    {
        long size = Math.Max(128, (Device.type == DeviceType.CPU ? 1L << 20 : 1L << 27) / Config.VocabularySize);
        for (long start = 0; start < tokens; start += size) yield return (start, Math.Min(size, tokens - start));
    }

    /// <summary>One parameter and what is done with it.</summary>
    private sealed class Weight : Module
    {
        public readonly Parameter weight;

        public Weight(params long[] shape)
            : base(nameof(Weight))
        {
            weight = new(empty(shape));
            RegisterComponents();
        }

        /// <summary>x·Wᵀ over the last dimension.</summary>
        public Tensor Project(Tensor x) => functional.linear(x, weight);

        /// <summary>RMSNorm over the last dimension (Zhang and Sennrich 2019): x / sqrt(mean(x²) + eps) · w.</summary>
        public Tensor Normalise(Tensor x) => Aten.RmsNorm(x, weight, Epsilon);
    }

    private sealed class Stack : Module
    {
        public readonly ModuleList<Block> layers;

        public Stack(ModelConfig config)
            : base(nameof(Stack))
        {
            layers = new([.. Enumerable.Range(0, config.NumDecoderLayers).Select(_ => new Block(config))]);
            RegisterComponents();
        }
    }

    private sealed class Classifier : Module
    {
        public readonly Weight norm;

        public Classifier(ModelConfig config)
            : base(nameof(Classifier))
        {
            norm = new(config.EmbeddingDimensions);
            RegisterComponents();
        }
    }

    private sealed class Block : Module
    {
        public readonly Weight norm1;
        public readonly Attention stage1;
        public readonly Weight norm2;
        public readonly Mlp stage2;

        public Block(ModelConfig config)
            : base(nameof(Block))
        {
            norm1 = new(config.EmbeddingDimensions);
            stage1 = new(config);
            norm2 = new(config.EmbeddingDimensions);
            stage2 = new(config);
            RegisterComponents();
        }

        // The branches' outputs are not needed by the backward pass, so the stream is added to them in place.
        public Tensor Apply(Tensor x_BTd, Generator? dropout, KeyValueCache? cache, int layer, Tensor? mask)
        {
            Tensor attended_BTd = stage1.Apply(norm1.Normalise(x_BTd), cache, layer, mask).add_(x_BTd);
            return stage2.Apply(norm2.Normalise(attended_BTd), dropout).add_(attended_BTd);
        }
    }

    /// <summary>Causal self-attention, scale 1/sqrt(D); consecutive query heads share a key and value head.</summary>
    private sealed class Attention : Module
    {
        public readonly Weight q_proj;
        public readonly Weight k_proj;
        public readonly Weight v_proj;
        public readonly Weight out_proj;
        private readonly int _queryHeads;
        private readonly int _kvHeads;
        private readonly int _headDimensions;

        public Attention(ModelConfig config)
            : base(nameof(Attention))
        {
            int d = config.EmbeddingDimensions;
            (_queryHeads, _kvHeads, _headDimensions) = (config.NumQHeads, config.NumKvHeads, config.HeadDimensions);
            q_proj = new(d, d);
            k_proj = new(config.KvDimensions, d);
            v_proj = new(config.KvDimensions, d);
            out_proj = new(d, d);
            RegisterComponents();
        }

        public Tensor Apply(Tensor x_BTd, KeyValueCache? cache, int layer, Tensor? mask)
        {
            long rows = x_BTd.shape[0], count = x_BTd.shape[1];
            Tensor q_BTd = q_proj.Project(x_BTd);
            Tensor k_BKTD = Heads(k_proj.Project(x_BTd), _kvHeads);
            Tensor v_BKTD = Heads(v_proj.Project(x_BTd), _kvHeads);
            if (cache is not null) (k_BKTD, v_BKTD) = cache.Append(layer, k_BKTD, v_BKTD);
            Tensor mixed_BTd;
            if (count == 1)
            {
                // One query sees everything: the G heads that share keys become the rows of one product, and nothing is copied.
                Tensor q_BKGD = q_BTd.view(rows, _kvHeads, _queryHeads / _kvHeads, _headDimensions);
                mixed_BTd = Aten.Attention(q_BKGD, k_BKTD, v_BKTD, mask: mask).reshape(rows, 1, -1);
            }
            else
            {
                Tensor mixed_BHTD = Aten.Attention(
                    Heads(q_BTd, _queryHeads), k_BKTD, v_BKTD, mask: mask, causal: mask is null, groupedQuery: _kvHeads != _queryHeads);
                mixed_BTd = mixed_BHTD.transpose(1, 2).reshape(rows, count, -1);
            }
            return out_proj.Project(mixed_BTd);
        }

        private Tensor Heads(Tensor x_BTd, int heads) => x_BTd.view(x_BTd.shape[0], x_BTd.shape[1], heads, _headDimensions).transpose(1, 2);
    }

    /// <summary>linear2(silu(linear1(x))), left out for whole tokens by dropout.</summary>
    private sealed class Mlp : Module
    {
        public readonly Weight linear1;
        public readonly Weight linear2;
        private readonly double _kept;

        public Mlp(ModelConfig config)
            : base(nameof(Mlp))
        {
            linear1 = new(config.HiddenDimensions, config.EmbeddingDimensions);
            linear2 = new(config.EmbeddingDimensions, config.HiddenDimensions);
            _kept = 1 - config.Dropout;
            RegisterComponents();
        }

        public Tensor Apply(Tensor x_BTd, Generator? dropout)
        {
            Tensor y_BTd = linear2.Project(functional.silu(linear1.Project(x_BTd)));
            if (dropout is null) return y_BTd;
            // The reference drops before linear2. A token's hidden units go together and linear2 has no bias, so after it is the same and narrower.
            Tensor mask_BT1 = empty(x_BTd.shape[0], x_BTd.shape[1], 1, device: x_BTd.device).bernoulli_(_kept, dropout).div_(_kept);
            return y_BTd.mul_(mask_BT1);
        }
    }
}
