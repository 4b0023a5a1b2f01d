using NopeGpt.Model.Fused;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

public sealed partial class Decoder
{
    /// <summary>linear2(silu(linear1(x))), gated by linear3(x) where there is one, or with GELU; left out for whole tokens by dropout.</summary>
    private sealed class FeedForward : Module
    {
        public readonly Linear linear1;
        public readonly Linear linear2;
        public readonly Linear? linear3;
        private readonly Mlp _form;
        private readonly double _dropout;

        public FeedForward(ModelConfig config)
            : base(nameof(FeedForward))
        {
            (_form, _dropout) = (config.Mlp, config.Dropout);
            linear1 = new(config.HiddenDimensions, config.EmbeddingDimensions, config.LinearBias);
            linear2 = new(config.EmbeddingDimensions, config.HiddenDimensions, config.LinearBias);
            if (_form == Mlp.Swiglu) linear3 = new(config.HiddenDimensions, config.EmbeddingDimensions, config.LinearBias);
            RegisterComponents();
        }

        /// <param name="norm">Comes first.</param>
        public Tensor Apply(Normalisation norm, Tensor x_BTd, Step step)
        {
            // The reference drops before linear2. A token's hidden units go together, so dropping the product is the same and narrower; the bias stays.
            bool drops = step.Dropout is not null && _dropout > 0;
            Tensor y_BTd = Fused(norm, x_BTd, step, biased: !drops) ?? Plain(norm.Apply(x_BTd, step.Memory is not null).As(step.Type), step, biased: !drops);
            if (!drops) return y_BTd;
            y_BTd = step.Drop(y_BTd, _dropout, x_BTd.shape[0], x_BTd.shape[1], 1);
            return linear2.bias is null ? y_BTd : y_BTd.add_(linear2.bias, Scalars.One);
        }

        private Tensor Plain(Tensor x_BTd, Step step, bool biased)
        {
            Tensor hidden_BTh = linear1.Apply(x_BTd, step.Dropout);
            hidden_BTh = Activate(hidden_BTh, linear3?.Apply(x_BTd, step.Dropout), fused: step.Memory is not null && FusedOperators.Fit(hidden_BTh, linear1.weight));
            return biased ? linear2.Apply(hidden_BTh, step.Dropout) : linear2.Product(hidden_BTh, step.Dropout);
        }

        private Tensor Activate(Tensor hidden_BTh, Tensor? gate_BTh, bool fused)
        {
            if (fused) return ActivationPass.Apply(hidden_BTh, gate_BTh, _form == Mlp.Gelu);
            hidden_BTh = _form == Mlp.Gelu ? hidden_BTh.gelu(TorchSharp.Modules.GELU.Approximate.tanh) : functional.silu(hidden_BTh);
            return gate_BTh is null ? hidden_BTh : hidden_BTh.mul(gate_BTh);
        }

        /// <summary>Null: the fused operator is not for this pass.</summary>
        private Tensor? Fused(Normalisation norm, Tensor x_BTd, Step step, bool biased)
        {
            if (step.Memory is null || !FusedOperators.Fit(x_BTd, linear1.weight) || linear1.weight.shape[0] % ThinProduct.Lanes != 0) return null;
            if ((linear1.Own, linear2.Own) is not ({ } first, { } last) || linear3 is { Own: null }) return null;
            return MlpPass.Apply(x_BTd, new(norm, first, linear3?.Own, biased ? last : last with { Bias_o = null }, _form == Mlp.Gelu, step.Memory));
        }
    }
}
