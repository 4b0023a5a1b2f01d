using static TorchSharp.torch;

namespace NopeGpt.Model;

// Parameters are float32 whatever the network computes in.
public sealed partial class Decoder
{
    private Precision _precision = Precision.Float32;

    /// <summary>The type of products and attention in training (<see cref="TorchSharp.torch.nn.Module.train"/>). Each weight is cast where it is used, and the cast lives
    /// until the backward pass has used it. Parameters, gradients, the stream between blocks, norms, softmax and loss are float32 always; so is all of evaluation
    /// and generation, which say of the weights what a checkpoint of them will do anywhere.</summary>
    /// <exception cref="ArgumentException">It is <see cref="Precision.Auto"/>: choose for the device first.</exception>
    public Precision Precision
    {
        get => _precision;
        set
        {
            _ = value.Type();
            _precision = value;
        }
    }

    /// <summary>Null: that of the weights.</summary>
    private ScalarType? ComputeType => training && _precision != Precision.Float32 ? _precision.Type() : null;
}
