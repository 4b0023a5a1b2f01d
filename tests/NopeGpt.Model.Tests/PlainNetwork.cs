using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>The network of a config written out slowly, in double precision, from the formulas and not from the Decoder: heads one by one,
/// rotations by cosines and sines, normalisations and activations by hand. The truth for tests.</summary>
internal sealed class PlainNetwork
{
    private readonly ModelConfig _config;

    public PlainNetwork(ModelConfig config, IEnumerable<(string Name, Tensor Parameter)> parameters)
    {
        _config = config;
        State = parameters.ToDictionary(p => p.Name, p => p.Parameter.detach().@double().clone().requires_grad_());
    }

    public Dictionary<string, Tensor> State { get; }

    /// <summary>Tokens that each one sees, itself included.</summary>
    public int Window { get; init; } = int.MaxValue;

    /// <param name="dropout">Where given, draws masks as the Decoder does in training: embedding, then each block's attention, its output, its MLP's tokens, its output.</param>
    public Tensor Logits(Tensor tokens_BT, Generator? dropout = null)
    {
        long count = tokens_BT.shape[1];
        Tensor x = State["token_embeddings.weight"][tokens_BT];
        if (_config.Positions == Positions.Learned) x = x + State["position_embeddings.weight"][..(int)count];
        x = x * Mask(dropout, _config.ResidualDropout, x.shape);
        for (int i = 0; i < _config.NumDecoderLayers; i++)
        {
            string layer = $"decoder.layers.{i}.";
            Tensor attended = Attend(Normalise(x, layer + "norm1"), layer + "stage1.", dropout);
            x = x + (attended * Mask(dropout, _config.ResidualDropout, x.shape));
            Tensor fed = FeedForward(Normalise(x, layer + "norm2"), layer + "stage2.", dropout);
            x = x + (fed * Mask(dropout, _config.ResidualDropout, x.shape));
        }
        Tensor head = State[_config.TiedHead ? "token_embeddings.weight" : "token_classifier.linear.weight"][.._config.VocabularySize];
        return Normalise(x, "token_classifier.norm").matmul(head.T);
    }

    public Tensor Loss(Tensor tokens_BT, Tensor targets_BT, Generator? dropout = null)
    {
        Tensor logits_BTV = Logits(tokens_BT, dropout), counted_BT = targets_BT.ne(Decoder.IgnoredTarget);
        Tensor likelihood_BTV = logits_BTV - logits_BTV.logsumexp(-1, keepdim: true);
        return -(likelihood_BTV.gather(2, targets_BT.clamp(min: 0).unsqueeze(2)).squeeze(2) * counted_BT).sum() / counted_BT.sum();
    }

    private static Tensor Mask(Generator? dropout, double probability, params long[] shape) =>
        dropout is null || probability == 0 ? ones([], ScalarType.Float64) : empty(shape).bernoulli_(1 - probability, dropout).@double() / (1 - probability);

    private Tensor Normalise(Tensor x, string name)
    {
        if (_config.Norm == Norm.LayerNorm) x = x - x.mean([-1], keepdim: true);
        Tensor y = x / (x.square().mean([-1], keepdim: true) + _config.NormEpsilon).sqrt() * State[name + ".weight"];
        return _config.NormBias ? y + State[name + ".bias"] : y;
    }

    private Tensor Project(Tensor x, string name) => _config.LinearBias ? x.matmul(State[name + ".weight"].T) + State[name + ".bias"] : x.matmul(State[name + ".weight"].T);

    private Tensor Attend(Tensor x, string name, Generator? dropout)
    {
        int width = _config.EmbeddingDimensions / _config.NumQHeads, group = _config.NumQHeads / _config.NumKvHeads;
        long rows = x.shape[0], count = x.shape[1];
        Tensor q = Project(x, name + "q_proj"), k = Project(x, name + "k_proj"), v = Project(x, name + "v_proj");
        Tensor mask = Mask(dropout, _config.AttentionDropout, rows, _config.NumKvHeads, group, count, count);
        List<Tensor> heads = [];
        for (int head = 0; head < _config.NumQHeads; head++)
        {
            int shared = head / group;
            Tensor query = Rotate(q[.., .., (head * width)..((head + 1) * width)]), key = Rotate(k[.., .., (shared * width)..((shared + 1) * width)]);
            Tensor scores = query.matmul(key.transpose(1, 2)) / Math.Sqrt(width);
            scores = scores.masked_fill(ones(count, count, ScalarType.Bool).tril().triu(1L - Window).logical_not(), double.NegativeInfinity);
            Tensor weights = scores.softmax(-1) * (mask.dim() == 0 ? mask : mask[.., shared, head % group]);
            heads.Add(weights.matmul(v[.., .., (shared * width)..((shared + 1) * width)]));
        }
        return Project(torch.cat(heads, -1), name + "out_proj");
    }

    private Tensor Rotate(Tensor x_BTD)
    {
        if (_config.Positions != Positions.Rope) return x_BTD;
        int width = (int)x_BTD.shape[2];
        List<Tensor> channels = [];
        Tensor place = arange(x_BTD.shape[1], ScalarType.Float64);
        for (int i = 0; i < width; i += 2)
        {
            Tensor angle = place * Math.Pow(_config.RopeTheta, -(double)i / width);
            Tensor even = x_BTD[.., .., i], odd = x_BTD[.., .., i + 1];
            channels.Add((even * angle.cos()) - (odd * angle.sin()));
            channels.Add((even * angle.sin()) + (odd * angle.cos()));
        }
        return stack(channels, -1);
    }

    private Tensor FeedForward(Tensor x, string name, Generator? dropout)
    {
        Tensor hidden = Project(x, name + "linear1");
        hidden = _config.Mlp == Mlp.Gelu
            ? 0.5 * hidden * (1 + (Math.Sqrt(2 / Math.PI) * (hidden + (0.044715 * hidden.pow(3)))).tanh())
            : hidden / (1 + (-hidden).exp());
        if (_config.Mlp == Mlp.Swiglu) hidden = hidden * Project(x, name + "linear3");
        // As the reference: whole tokens of the hidden layer.
        return Project(hidden * Mask(dropout, _config.Dropout, x.shape[0], x.shape[1], 1), name + "linear2");
    }
}
