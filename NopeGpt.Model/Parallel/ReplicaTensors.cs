using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>All tensors of a model that a replica has its own of: parameters, and those of attached adapters.</summary>
internal static class ReplicaTensors
{
    /// <summary>In one order for all replicas. The names of those that train are those of <see cref="Decoder.TrainedParameters"/>.</summary>
    public static IEnumerable<(string Name, Tensor Tensor, bool Trains)> Of(Decoder model) =>
        model.Parameters().Concat(OfAdapters(model)).Select(t => (t.Name, t.Parameter, t.Parameter.requires_grad));

    /// <summary>What a checkpoint must keep: the adapters' tensors where there are any, as their base never changes, and else the model's parameters.</summary>
    public static IEnumerable<(string Name, Tensor Tensor)> Saved(Decoder model) => model.Adapters.Count > 0 ? OfAdapters(model) : model.Parameters();

    /// <summary>The part of the network (<see cref="IPassage"/>) that uses a tensor first.</summary>
    public static int Part(string name, int blocks)
    {
        string[] words = name.Split('.');
        int first = words[0] == "adapters" ? 2 : 0;
        return words[first] switch
        {
            "decoder" => int.Parse(words[first + 2]) + 1,
            "token_classifier" => blocks + 1,
            _ => 0,
        };
    }

    /// <summary>A model of the same shape, with adapters of the same shapes attached, whose tensors hold nothing and take no memory.</summary>
    public static Decoder Shell(Decoder like, Device device, ulong dropoutSeed)
    {
        Decoder shell = Decoder.Shell(like.Config, device, dropoutSeed);
        (shell.Precision, shell.ActivationCheckpointing) = (like.Precision, like.ActivationCheckpointing);
        List<AttachedAdapter> adapters = [];
        foreach ((Adapter adapter, double strength) in like.Adapters)
        {
            Adapter copy = Adapter.Empty(shell, adapter.Config, adapter.BaseHash, adapter.VocabularySize, adapter.Embedding_Pd is not null);
            copy.Trains = adapter.Trains;
            adapters.Add(new(copy, strength));
        }
        shell.AttachOnly(adapters);
        foreach (((_, Tensor tensor, _), (_, _, bool trains)) in Of(shell).Zip(Of(like))) tensor.requires_grad = trains;
        shell.train();
        return shell;
    }

    /// <summary>Bytes of the storages that the tensors are views of, each counted once.</summary>
    // libtorch tells no place of a view without elements, such as the shard of a replica that has none of a bucket.
    public static long Bytes(IEnumerable<Tensor> tensors) => tensors.Where(t => t.numel() > 0).Select(Aten.Storage).Distinct().Sum(s => s.Bytes);

    private static IEnumerable<(string Name, Tensor Parameter)> OfAdapters(Decoder model) =>
        model.Adapters.SelectMany((a, i) => a.Adapter.Tensors().Select(t => (i == 0 ? t.Name : $"adapters.{i}.{t.Name}", t.Tensor)));
}
