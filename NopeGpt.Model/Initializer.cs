using NopeGpt.Model.Native;
using NopeGpt.Model.Storage.Layouts;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>Draws the parameters of a new model.</summary>
/// <remarks>
/// | parameter                 | default               | nope_gpt, light_gpt     | lil_lm                | gpt2       |
/// | token_embeddings          | N(0, 0.02)            | N(0, 1)                 | N(0, 1 / sqrt(d))     | N(0, 0.02) |
/// | position_embeddings       | N(0, 0.02)            | N(0, 1)                 | N(0, 1 / sqrt(d))     | N(0, 0.02) |
/// | a head of its own         | N(0, 0.02)            | U(-1, 1) / sqrt(inputs) | N(0, 1 / sqrt(d))     | N(0, 0.02) |
/// | q, k, v, linear1, linear3 | N(0, 1 / sqrt(d))     | U(-1, 1) / sqrt(inputs) | N(0, 1 / sqrt(d))     | N(0, 0.02) |
/// | out_proj, linear2         | N(0, 0.02 / sqrt(2L)) | U(-1, 1) / sqrt(inputs) | N(0, 0.02 / sqrt(2L)) | N(0, 0.02) |
/// | biases of projections     | 0                     | U(-1, 1) / sqrt(inputs) | 0                     | 0          |
/// | norms                     | 1, their biases 0     | 1, 0                    | 1, 0                  | 1, 0       |
/// Why ours is so: with a small tied head the logits start near 0 and the first loss near ln V; inside a branch unit variance at any width
/// (LeCun et al. 1998) lets attention start sharp enough to learn from (docs/experiments.md); 2L branches add up in the residual stream
/// (Radford et al. 2019, 2.3). NoPE GPT and the last LightGPT before it leave all to PyTorch, whose embedding, and so their tied head, is
/// N(0, 1): their first loss is 10 to 100 times ln V. Both reference systems with GPT-2's network compute the smaller deviation of
/// out_proj and linear2 and then do not use it, and gpt2 is what they do.
/// </remarks>
internal sealed class Initializer(ModelConfig config, Generator generator)
{
    private const double Small = 0.02;
    private readonly double _width = 1 / Math.Sqrt(config.EmbeddingDimensions);
    private readonly double _residual = Small / Math.Sqrt(2.0 * config.NumDecoderLayers);

    /// <summary>Draws every parameter of the list, in its order.</summary>
    public void Draw(IEnumerable<(string Name, Tensor Parameter)> parameters)
    {
        using (no_grad())
            foreach ((string name, Tensor parameter) in parameters)
            {
                Draw(name.Split('.'), parameter);
                // Padding is zero, and as it has no gradient stays so: it is not in the files, and no optimizer's mean over the table depends on it.
                if ((name is CanonicalNames.Embedding or CanonicalNames.Head) && parameter.shape[0] > config.VocabularySize)
                    parameter.narrow(0, config.VocabularySize, parameter.shape[0] - config.VocabularySize).zero_();
            }
    }

    // A name ends with the part, such as norm1, and weight or bias.
    private void Draw(string[] name, Tensor parameter)
    {
        string part = name[^2];
        bool bias = name[^1] == "bias";
        if (part.StartsWith("norm", StringComparison.Ordinal)) parameter.fill_(bias ? Scalars.Zero : Scalars.One);
        else if (config.Initialization is Initialization.NopeGpt or Initialization.LightGpt) DrawAsPyTorch(part, parameter);
        else if (bias) parameter.zero_();
        else parameter.normal_(0, Deviation(part), generator);
    }

    private void DrawAsPyTorch(string part, Tensor parameter)
    {
        if (part.EndsWith("embeddings", StringComparison.Ordinal))
        {
            parameter.normal_(0, 1, generator);
            return;
        }
        // Of all projections only linear2 reads the hidden layer.
        double bound = 1 / Math.Sqrt(part == "linear2" ? config.HiddenDimensions : config.EmbeddingDimensions);
        parameter.uniform_(-bound, bound, generator);
    }

    private double Deviation(string part)
    {
        if (config.Initialization == Initialization.Gpt2) return Small;
        return part switch
        {
            "out_proj" or "linear2" => _residual,
            "token_embeddings" or "position_embeddings" or "linear" => config.Initialization == Initialization.LilLm ? _width : Small,
            _ => _width,
        };
    }
}
