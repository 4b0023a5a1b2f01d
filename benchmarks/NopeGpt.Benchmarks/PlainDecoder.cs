using NopeGpt.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;
using Linear = TorchSharp.Modules.Linear;

namespace NopeGpt.Benchmarks;

/// <summary>The same network as <see cref="Decoder"/> as one writes it with TorchSharp's own modules: keys and values repeated for every
/// query head, RMSNorm by hand, all logits at once. The measure for what our forms bring.</summary>
internal sealed class PlainDecoder : Module<Tensor, Tensor>
{
    private readonly ModelConfig config;
    private readonly Embedding embedding;
    private readonly ModuleList<PlainBlock> blocks;
    private readonly Parameter norm;

    public PlainDecoder(ModelConfig config)
        : base(nameof(PlainDecoder))
    {
        this.config = config;
        embedding = Embedding(config.VocabularySize, config.EmbeddingDimensions);
        blocks = new([.. Enumerable.Range(0, config.NumDecoderLayers).Select(_ => new PlainBlock(config))]);
        norm = new(ones(config.EmbeddingDimensions));
        RegisterComponents();
        using (no_grad())
        {
            foreach (Parameter parameter in parameters())
            {
                if (parameter.dim() > 1) parameter.normal_(0, 0.02);
            }
        }
    }

    public override Tensor forward(Tensor tokens_BT)
    {
        Tensor x_BTd = embedding.call(tokens_BT);
        foreach (PlainBlock block in blocks) x_BTd = block.call(x_BTd);
        return functional.linear(Normalise(x_BTd, norm), embedding.weight!);
    }

    public Tensor Loss(Tensor tokens_BT, Tensor targets_BT) =>
        functional.cross_entropy(call(tokens_BT).view(-1, config.VocabularySize), targets_BT.view(-1));

    private static Tensor Normalise(Tensor x, Tensor weight) => x * (x.pow(2).mean([-1], keepdim: true) + 1.1920929e-7).rsqrt() * weight;

    private sealed class PlainBlock : Module<Tensor, Tensor>
    {
        private readonly int queryHeads;
        private readonly int kvHeads;
        private readonly int width;
        private readonly Parameter norm1;
        private readonly Parameter norm2;
        private readonly Linear q;
        private readonly Linear k;
        private readonly Linear v;
        private readonly Linear output;
        private readonly Linear linear1;
        private readonly Linear linear2;

        public PlainBlock(ModelConfig config)
            : base(nameof(PlainBlock))
        {
            int d = config.EmbeddingDimensions;
            (queryHeads, kvHeads, width) = (config.NumQHeads, config.NumKvHeads, config.HeadDimensions);
            norm1 = new(ones(d));
            norm2 = new(ones(d));
            q = Linear(d, d, hasBias: false);
            k = Linear(d, config.KvDimensions, hasBias: false);
            v = Linear(d, config.KvDimensions, hasBias: false);
            output = Linear(d, d, hasBias: false);
            linear1 = Linear(d, config.HiddenDimensions, hasBias: false);
            linear2 = Linear(config.HiddenDimensions, d, hasBias: false);
            RegisterComponents();
        }

        public override Tensor forward(Tensor x_BTd)
        {
            Tensor y_BTd = Normalise(x_BTd, norm1);
            Tensor mixed_BHTD = functional.scaled_dot_product_attention(
                Heads(q.call(y_BTd), queryHeads), Heads(k.call(y_BTd), kvHeads).repeat_interleave(queryHeads / kvHeads, 1),
                Heads(v.call(y_BTd), kvHeads).repeat_interleave(queryHeads / kvHeads, 1), is_casual: true);
            x_BTd = x_BTd + output.call(mixed_BHTD.transpose(1, 2).reshape(x_BTd.shape));
            return x_BTd + linear2.call(functional.silu(linear1.call(Normalise(x_BTd, norm2))));
        }

        private Tensor Heads(Tensor x_BTd, int heads) => x_BTd.view(x_BTd.shape[0], x_BTd.shape[1], heads, width).transpose(1, 2);
    }
}
