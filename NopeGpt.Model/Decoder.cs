using NopeGpt.Model.Fused;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

// Shapes: B rows, T tokens of a row, S tokens in reach of the attention, d width of the residual stream, H query heads, K key and
// value heads, G = H / K query heads that share one, D width of a head, E = D / 2 pairs of channels, h width of the MLP's hidden layer,
// V vocabulary, N = B·T tokens; P is a dimension before T that is B, or 1 where all rows are alike, and in a head V with its padding.

/// <summary>A pre-norm decoder, ids in, logits out: embedding (and learned positions), L blocks of grouped causal attention and an MLP, a
/// normalisation and a head. As <see cref="ModelConfig"/> says, it is NoPE GPT, LightGPT, lilLM, GPT-2 or anything between them. Names in
/// the state are those of the Python package nope-gpt and what docs/decisions/0005 adds to them.</summary>
public sealed partial class Decoder : Module
{
    /// <summary>A target of this id does not count in the loss.</summary>
    public const int IgnoredTarget = -100;

    [ComponentName(Name = "token_embeddings")]
    private readonly Table _embedding;

    [ComponentName(Name = "position_embeddings")]
    private readonly Table? _positions;

    [ComponentName(Name = "decoder")]
    private readonly Stack _stack;

    [ComponentName(Name = "token_classifier")]
    private readonly Classifier _classifier;

    private readonly RotaryTable? _rotary;
    private readonly Generator _dropout;
    private readonly ActivationPool _activations = new();

    /// <summary>A new model. The same seed gives the same parameters on every device.</summary>
    /// <exception cref="ArgumentException">The config has problems; the message names them all.</exception>
    public Decoder(ModelConfig config, ulong seed, Device? device = null)
        : this(config, device, seed)
    {
        using Generator generator = new(seed, CPU);
        new Initializer(config, generator).Draw(Parameters());
        if (device is not null && device.type != DeviceType.CPU) this.to(device);
    }

    private Decoder(ModelConfig config, Device? device, ulong dropoutSeed)
        : base(nameof(Decoder))
    {
        string[] problems = [.. config.Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(config));
        Config = config;
        Device = device ?? CPU;
        _embedding = new(config.PaddedVocabularySize, config.EmbeddingDimensions);
        if (config.Positions == Positions.Learned) _positions = new(config.ContextLength, config.EmbeddingDimensions);
        if (config.Positions == Positions.Rope) _rotary = new(config.HeadDimensions, config.RopeTheta, Device);
        _stack = new(config);
        _classifier = new(config);
        // Another stream than the parameters': their first numbers would be the same.
        _dropout = new(dropoutSeed ^ DropoutStream, Device);
        RegisterComponents();
    }

    public ModelConfig Config { get; private set; }

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

    /// <summary>Logits of every position.</summary>
    /// <param name="tokens_BT">Ids, int64.</param>
    /// <param name="packing">Which of them belong together. Null: each row is one sequence.</param>
    /// <returns>logits_BTV, float32.</returns>
    public Tensor Forward(Tensor tokens_BT, Packing? packing = null)
    {
        using DisposeScope scope = NewDisposeScope();
        return Logits(Hidden(tokens_BT, null, packing), ComputeType).MoveToOuterDisposeScope();
    }

    /// <summary>Reads the tokens after those that the cache holds, without gradients.</summary>
    /// <param name="tokens_BT">The new ids, int64: a prompt, a part of one, or one token. As many rows as the cache has.</param>
    /// <returns>logits_BV of the last position.</returns>
    public Tensor Forward(Tensor tokens_BT, KeyValueCache cache) => Forward(tokens_BT, [.. Enumerable.Repeat((int)tokens_BT.size(-1), cache.Rows)], cache);

    /// <summary>Reads another number of tokens in each row.</summary>
    /// <param name="tokens_BT">The new ids, int64, at the right. Before them stands any id of the vocabulary.</param>
    /// <param name="counts">The tokens of each row, from 0 to T.</param>
    /// <returns>logits_BV of the last position. Those of a row without tokens mean nothing.</returns>
    public Tensor Forward(Tensor tokens_BT, IReadOnlyList<int> counts, KeyValueCache cache)
    {
        using DisposeScope scope = NewDisposeScope();
        using var inference = no_grad();
        return Logits(cache.Read(Config, tokens_BT, counts, (chunk_BT, step) => Hidden(chunk_BT, step)), null).squeeze(1).MoveToOuterDisposeScope();
    }

    /// <summary>Mean cross-entropy in nats over the targets that count.</summary>
    /// <param name="tokens_BT">Ids, int64.</param>
    /// <param name="targets_BT">The id that follows each, int64; <see cref="IgnoredTarget"/> is left out.</param>
    /// <param name="packing">Which tokens belong together. Null: each row is one sequence.</param>
    /// <returns>A 0-d tensor; 0 where no target counts.</returns>
    public Tensor Loss(Tensor tokens_BT, Tensor targets_BT, Packing? packing = null)
    {
        using DisposeScope scope = NewDisposeScope();
        // 1 / count where a target counts, 0 where not.
        Tensor share_BT = targets_BT.ne(Scalars.Of(IgnoredTarget)).to(ScalarType.Float32);
        return Loss(tokens_BT, targets_BT, share_BT.div_(share_BT.sum().clamp_(min: Scalars.One)), packing).MoveToOuterDisposeScope();
    }

    /// <summary>Cross-entropy in nats of each target, for evaluation.</summary>
    /// <returns>loss_BT, 0 where the target is <see cref="IgnoredTarget"/>.</returns>
    public Tensor LossPerToken(Tensor tokens_BT, Tensor targets_BT, Packing? packing = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x_Nd = _classifier.norm.Apply(Hidden(tokens_BT, null, packing), trains: false).flatten(0, 1);
        TokenTable head = Head();
        Tensor loss_BT = new HeadLoss(head.Weight(), head.Size, null, _activations).Each(x_Nd, targets_BT.flatten()).view(targets_BT.shape);
        Passage?.End();
        return loss_BT.MoveToOuterDisposeScope();
    }

    /// <summary>Every trained parameter with its name in the checkpoint. The tied head is the embedding and is not listed again.</summary>
    public IReadOnlyList<(string Name, Tensor Parameter)> Parameters() => [.. named_parameters().Select(p => (p.name, (Tensor)p.parameter))];

    public long CountParameters() => Parameters().Sum(p => p.Parameter.numel());

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _dropout.Dispose();
            _activations.Dispose();
            _rotary?.Dispose();
        }
        base.Dispose(disposing);
    }

    private Tensor Hidden(Tensor tokens_BT, CacheStep? cached, Packing? packing = null, bool trains = false)
    {
        int rows = (int)tokens_BT.shape[0], count = (int)tokens_BT.shape[1];
        packing?.Check(tokens_BT);
        Step step = NextStep(count, cached, packing) with { Memory = trains && ComputeType is null ? _activations : null };
        Passage?.Begin();
        Tensor x_BTd = Embedding().Rows(tokens_BT.flatten()).view(rows, count, -1);
        if (_positions is not null) x_BTd = x_BTd.add(_positions.weight.index_select(0, step.Positions_PT!.flatten()).view(step.Positions_PT.shape[0], count, -1), Scalars.One);
        x_BTd = After(0, step.Drop(x_BTd, Config.ResidualDropout));
        for (int i = 0; i < _stack.layers.Count; i++) x_BTd = After(i + 1, Layer(i, x_BTd, step));
        return x_BTd;
    }

    /// <summary>Where the next tokens stand, and what each of them sees.</summary>
    private Step NextStep(int count, CacheStep? cached, Packing? packing)
    {
        int end = packing?.Longest ?? count;
        if (_positions is not null && cached is null && end > Config.ContextLength)
            throw new ArgumentException($"{end} tokens do not fit: the model has learned context_length = {Config.ContextLength} positions. Give it fewer.");
        Tensor? positions_PT = cached is not null ? cached.Value.Positions_PT
            : Config.Positions == Positions.None ? null
            : packing is not null ? packing.Positions(Device)
            : Scalars.Range(count, ScalarType.Int64, Device).unsqueeze(0);
        return new()
        {
            Positions_PT = positions_PT,
            Rotation_PTE = _rotary?.At(positions_PT!, cached?.End ?? end),
            Mask = cached?.Mask,
            Cache = cached?.Cache,
            Sequences = packing?.Lengths,
            // A cache is for generation, which leaves nothing out.
            Dropout = training && cached is null ? _dropout : null,
            Type = cached is null ? ComputeType : null,
        };
    }

    /// <summary>What the blocks know of one pass beside the stream.</summary>
    private readonly record struct Step
    {
        /// <summary>Place of each token, one row for all or one for each: [1 or B, T], int64. Null without positions.</summary>
        public Tensor? Positions_PT { get; init; }

        /// <summary>Rotation of each place, complex. Null without rotary positions.</summary>
        public Tensor? Rotation_PTE { get; init; }

        /// <summary>Added to the attention's scores, [B or 1, 1, T, S]. Null: causal, or a single token that sees all.</summary>
        public Tensor? Mask { get; init; }

        public KeyValueCache? Cache { get; init; }

        /// <summary>Tokens of each sequence, all rows one after the other. Null: each row is one.</summary>
        public long[]? Sequences { get; init; }

        /// <summary>For the operators of training. Null: the pass is for the logits, and its values are the same with and without gradients; or it has a narrow type.</summary>
        public ActivationPool? Memory { get; init; }

        /// <summary>Of products and attention, where it is not the stream's.</summary>
        public ScalarType? Type { get; init; }

        /// <summary>Draws what is left out. Null: nothing is.</summary>
        public Generator? Dropout { get; init; }

        /// <summary>Leaves out elements of x, in place where autograd allows. All dropout of the network is drawn here.</summary>
        /// <param name="shape">Shape of the mask, where whole parts go together; by default that of x.</param>
        public Tensor Drop(Tensor x, double probability, params long[] shape)
        {
            if (Dropout is null || probability == 0) return x;
            double kept = 1 - probability;
            return x.mul_(empty(shape.Length == 0 ? x.shape : shape, device: x.device).bernoulli_(kept, Dropout).div_(Scalars.Of(kept)));
        }
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
        public readonly Normalisation norm;
        public readonly Table? linear;

        public Classifier(ModelConfig config)
            : base(nameof(Classifier))
        {
            norm = new(config);
            if (!config.TiedHead) linear = new(config.PaddedVocabularySize, config.EmbeddingDimensions);
            RegisterComponents();
        }
    }

    private sealed class Block : Module
    {
        public readonly Normalisation norm1;
        public readonly Attention stage1;
        public readonly Normalisation norm2;
        public readonly FeedForward stage2;
        private readonly double _dropout;

        public Block(ModelConfig config)
            : base(nameof(Block))
        {
            norm1 = new(config);
            stage1 = new(config);
            norm2 = new(config);
            stage2 = new(config);
            _dropout = config.ResidualDropout;
            RegisterComponents();
        }

        // The branches' outputs are not needed by the backward pass, so the stream is added to them in place where they have its type.
        public Tensor Apply(Tensor x_BTd, Step step, int layer)
        {
            Tensor attended_BTd = step.Drop(stage1.Apply(norm1, x_BTd, step, layer), _dropout).AddedTo(x_BTd);
            return step.Drop(stage2.Apply(norm2, attended_BTd, step), _dropout).AddedTo(attended_BTd);
        }
    }

    /// <summary>Causal self-attention, scale 1/sqrt(D); consecutive query heads share a key and value head.</summary>
    private sealed class Attention : Module
    {
        public readonly Linear q_proj;
        public readonly Linear k_proj;
        public readonly Linear v_proj;
        public readonly Linear out_proj;
        private readonly int _queryHeads;
        private readonly int _kvHeads;
        private readonly int _headDimensions;
        private readonly double _dropout;

        public Attention(ModelConfig config)
            : base(nameof(Attention))
        {
            int d = config.EmbeddingDimensions;
            (_queryHeads, _kvHeads, _headDimensions, _dropout) = (config.NumQHeads, config.NumKvHeads, config.HeadDimensions, config.AttentionDropout);
            q_proj = new(d, d, config.LinearBias);
            k_proj = new(config.KvDimensions, d, config.LinearBias);
            v_proj = new(config.KvDimensions, d, config.LinearBias);
            out_proj = new(d, d, config.LinearBias);
            RegisterComponents();
        }

        /// <param name="norm">Comes first.</param>
        public Tensor Apply(Normalisation norm, Tensor x_BTd, Step step, int layer)
        {
            Tensor[] projected = Project(norm, x_BTd, step);
            Tensor q_BTHD = Rotate(Heads(projected[0], _queryHeads), step.Rotation_PTE);
            Tensor k_BTKD = Rotate(Heads(projected[1], _kvHeads), step.Rotation_PTE);
            Tensor v_BTKD = Heads(projected[2], _kvHeads);
            Tensor mixed_BTd;
            if (step.Sequences is null)
            {
                mixed_BTd = Attend(q_BTHD, k_BTKD, v_BTKD, step, layer);
            }
            else
            {
                // All rows in one, cut into the sequences: none sees another, and a row costs less than if all of it were seen.
                Tensor[][] pieces = [.. new[] { q_BTHD, k_BTKD, v_BTKD }.Select(x => x.flatten(0, 1).unsqueeze(0).split(step.Sequences, 1))];
                mixed_BTd = cat([.. step.Sequences.Select((_, i) => Attend(pieces[0][i], pieces[1][i], pieces[2][i], step, layer))], 1).view(x_BTd.shape);
            }
            return out_proj.Apply(mixed_BTd, step.Dropout);
        }

        private Tensor[] Project(Normalisation norm, Tensor x_BTd, Step step)
        {
            if (step.Memory is not null && FusedOperators.Fit(x_BTd, q_proj.weight) && (q_proj.Own, k_proj.Own, v_proj.Own) is ({ } q, { } k, { } v))
                return ProjectionPass.ApplyNormed(x_BTd, norm, step.Memory, q, k, v);
            Tensor normed_BTd = norm.Apply(x_BTd, step.Memory is not null).As(step.Type);
            return [q_proj.Apply(normed_BTd, step.Dropout), k_proj.Apply(normed_BTd, step.Dropout), v_proj.Apply(normed_BTd, step.Dropout)];
        }

        /// <summary>What each token takes from those before it, of rows that are one sequence each.</summary>
        private Tensor Attend(Tensor q_BTHD, Tensor k_BTKD, Tensor v_BTKD, Step step, int layer)
        {
            long rows = q_BTHD.shape[0], count = q_BTHD.shape[1];
            (Tensor k_BKTD, Tensor v_BKTD) = (k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2));
            if (step.Cache is not null) (k_BKTD, v_BKTD) = step.Cache.Append(layer, k_BKTD, v_BKTD);
            Tensor mixed_BTHD;
            if (step.Dropout is not null && _dropout > 0)
            {
                mixed_BTHD = WithDropout(q_BTHD, k_BKTD, v_BKTD, step);
            }
            else if (count == 1)
            {
                // One query sees everything: the G heads that share keys become the rows of one product, and nothing is copied.
                Tensor q_BKGD = q_BTHD.view(rows, _kvHeads, _queryHeads / _kvHeads, _headDimensions);
                mixed_BTHD = SingleQueryAttention.Attend(q_BKGD, k_BKTD, v_BKTD, step.Mask);
            }
            else if (step.Memory is not null && AttentionPass.Fits(q_BTHD))
            {
                mixed_BTHD = AttentionPass.Apply(q_BTHD, k_BTKD, v_BTKD);
            }
            else
            {
                mixed_BTHD = Aten.Attention(
                    q_BTHD.transpose(1, 2), k_BKTD, v_BKTD, mask: step.Mask, causal: step.Mask is null, groupedQuery: _kvHeads != _queryHeads).transpose(1, 2);
            }
            return mixed_BTHD.reshape(rows, count, -1);
        }

        /// <summary>The formula written out, as libtorch's kernels would draw from the global generator. Training only, so no cache.</summary>
        private Tensor WithDropout(Tensor q_BTHD, Tensor k_BKTD, Tensor v_BKTD, Step step)
        {
            long rows = q_BTHD.shape[0], count = q_BTHD.shape[1];
            Tensor q_BKGTD = q_BTHD.transpose(1, 2).reshape(rows, _kvHeads, _queryHeads / _kvHeads, count, _headDimensions);
            Tensor scores_BKGTT = q_BKGTD.matmul(k_BKTD.unsqueeze(2).transpose(-2, -1)).mul_(Scalars.Of(1 / Math.Sqrt(_headDimensions)));
            Tensor later_TT = ones(count, count, ScalarType.Bool, q_BTHD.device).triu(1);
            Tensor weights_BKGTT = functional.softmax(scores_BKGTT.masked_fill_(later_TT, Scalars.MinusInfinity).As(ScalarType.Float32), -1);
            // Softmax's backward pass needs its result, so that the mask cannot be multiplied into it.
            Tensor kept_BKGTT = step.Drop(weights_BKGTT.clone(), _dropout);
            return kept_BKGTT.As(v_BKTD.dtype).matmul(v_BKTD.unsqueeze(2)).flatten(1, 2).transpose(1, 2);
        }

        private Tensor Heads(Tensor x_BTd, int heads) => x_BTd.view(x_BTd.shape[0], x_BTd.shape[1], heads, _headDimensions);

        /// <summary>Rotary positions (Su et al. 2021): channels 2i and 2i + 1 are a complex number, turned by position · theta^(-2i/D).</summary>
        private static Tensor Rotate(Tensor x_BTHD, Tensor? rotation_PTE) => rotation_PTE is null
            ? x_BTHD
            : x_BTHD.to(ScalarType.Float32).unflatten(3, -1, 2).view_as_complex().mul(rotation_PTE.unsqueeze(2)).view_as_real().flatten(3).to(x_BTHD.dtype);
    }
}
