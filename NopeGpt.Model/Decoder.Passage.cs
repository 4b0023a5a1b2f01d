using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

// What several replicas of one model need of it; how they work together is in Parallel/.
public sealed partial class Decoder
{
    /// <summary>What goes along with every pass where the model is one of several replicas. Null: nothing.</summary>
    internal IPassage? Passage { get; set; }

    /// <summary>A pass in training changes the state of the dropout generator.</summary>
    internal bool DrawsDropout => Math.Max(Config.Dropout, Math.Max(Config.AttentionDropout, Config.ResidualDropout)) > 0 || _adapters.Any(a => a.Adapter.Config.Dropout > 0);

    /// <summary>Cross-entropy in nats, summed with the given weights.</summary>
    /// <param name="share_BT">Weight of each target's loss, float32; 0 where the target is <see cref="IgnoredTarget"/>.</param>
    /// <param name="packing">Which tokens belong together. Null: each row is one sequence.</param>
    /// <returns>A 0-d tensor.</returns>
    internal Tensor Loss(Tensor tokens_BT, Tensor targets_BT, Tensor share_BT, Packing? packing)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x_Nd = _classifier.norm.Apply(Hidden(tokens_BT, null, packing, trains: true), trains: ComputeType is null).flatten(0, 1);
        TokenTable head = Head();
        Tensor loss = new HeadLoss(head.Weight(), head.Size, ComputeType, _activations).Sum(x_Nd, targets_BT.flatten(), share_BT.flatten());
        Passage?.End();
        return loss.MoveToOuterDisposeScope();
    }

    /// <summary>A model whose parameters have no elements yet: whoever asks for one gives them memory, of the shapes of <see cref="ParameterShapes"/>.</summary>
    internal static Decoder Shell(ModelConfig config, Device device, ulong dropoutSeed)
    {
        Decoder model = new(config, device, dropoutSeed);
        using (DisposeScope scope = NewDisposeScope())
        using (no_grad())
        {
            Tensor nothing = empty([0]);
            foreach ((_, Tensor parameter) in model.Parameters()) parameter.set_(nothing);
        }
        if (device.type != DeviceType.CPU) model.to(device);
        return model;
    }

    /// <exception cref="InvalidOperationException">The parameters are split between replicas, and this one's tensors hold nothing now.</exception>
    internal void RequireParameters()
    {
        if (Passage is { KeepsParameters: false })
            throw new InvalidOperationException("The model's parameters are split between replicas, so they cannot be read here: capture the state of their group.");
    }

    private Tensor Logits(Tensor x_BTd, ScalarType? type)
    {
        Tensor logits_BTV = Head().Project(_classifier.norm.Apply(x_BTd, trains: false).As(type)).As(x_BTd.dtype);
        Passage?.End();
        return logits_BTV;
    }

    private Tensor After(int part, Tensor x_BTd) => Passage is null ? x_BTd : Passage.Between(x_BTd, part);
}

/// <summary>Goes along with a pass through the parts of the network: 0 the embeddings, 1 to L the blocks, L + 1 normalisation and head.</summary>
internal interface IPassage
{
    /// <summary>False: between passes the parameters' memory is given back.</summary>
    bool KeepsParameters { get; }

    /// <summary>The embeddings are next.</summary>
    void Begin();

    /// <summary>The part is computed and the one after it is next, which also uses the embeddings where it is a tied head.</summary>
    /// <param name="x_BTd">What the part has made of the stream.</param>
    /// <returns>What the next part reads: the same values.</returns>
    Tensor Between(Tensor x_BTd, int part);

    /// <summary>The head is computed.</summary>
    void End();
}
