using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace NopeGpt.Model.Tests;

/// <summary>The network written out once more, slowly and from the formulas: one text, every head by itself, a band for a mask, no cache.
/// What <see cref="Decoder"/> and <see cref="KeyValueCache"/> compute is compared with it.</summary>
internal sealed class PlainModel(Decoder model)
{
    private readonly ModelConfig _config = model.Config;
    private readonly Dictionary<string, Tensor> _parameters = model.Parameters().ToDictionary(p => p.Name, p => p.Parameter);

    /// <summary>Logits of the last token, each seeing itself and the window - 1 before it. Learned positions begin again with the newest
    /// three quarters of the window whenever they are used up.</summary>
    public Tensor Logits(IReadOnlyList<int> text, int window)
    {
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        List<int> read = [];
        foreach (int token in text)
        {
            if (_config.Positions == Positions.Learned && read.Count == _config.ContextLength) read = [.. read.TakeLast(window * 3 / 4)];
            read.Add(token);
        }
        Tensor ids_T = tensor(read.Select(t => (long)t).ToArray());
        Tensor x_Td = _parameters["token_embeddings.weight"].index_select(0, ids_T);
        if (_config.Positions == Positions.Learned) x_Td = x_Td + _parameters["position_embeddings.weight"].narrow(0, 0, read.Count);
        Tensor seen_TT = ones(read.Count, read.Count, ScalarType.Bool).tril().triu(1 - window);
        for (int i = 0; i < _config.NumDecoderLayers; i++)
        {
            string block = $"decoder.layers.{i}.";
            x_Td = x_Td + Attend(block + "stage1.", Normalise(block + "norm1", x_Td), seen_TT);
            x_Td = x_Td + FeedForward(block + "stage2.", Normalise(block + "norm2", x_Td));
        }
        Tensor head_Vd = _parameters.GetValueOrDefault("token_classifier.linear.weight") ?? _parameters["token_embeddings.weight"];
        return Normalise("token_classifier.norm", x_Td)[read.Count - 1].matmul(head_Vd.narrow(0, 0, _config.VocabularySize).T).MoveToOuterDisposeScope();
    }

    private Tensor Normalise(string name, Tensor x_Td)
    {
        Tensor centred_Td = _config.Norm == Norm.LayerNorm ? x_Td - x_Td.mean([-1], keepdim: true) : x_Td;
        Tensor y_Td = centred_Td / (centred_Td.square().mean([-1], keepdim: true) + _config.NormEpsilon).sqrt() * _parameters[name + ".weight"];
        return _parameters.TryGetValue(name + ".bias", out Tensor? bias_d) ? y_Td + bias_d : y_Td;
    }

    private Tensor Project(string name, Tensor x_Td)
    {
        Tensor y_Td = x_Td.matmul(_parameters[name + ".weight"].T);
        return _parameters.TryGetValue(name + ".bias", out Tensor? bias_d) ? y_Td + bias_d : y_Td;
    }

    private Tensor Attend(string name, Tensor x_Td, Tensor seen_TT)
    {
        Tensor q_Td = Project(name + "q_proj", x_Td), k_Td = Project(name + "k_proj", x_Td), v_Td = Project(name + "v_proj", x_Td);
        int width = _config.HeadDimensions;
        IEnumerable<Tensor> heads = Enumerable.Range(0, _config.NumQHeads).Select(h =>
        {
            int shared = h / (_config.NumQHeads / _config.NumKvHeads);
            Tensor q_TD = Rotate(q_Td.narrow(1, h * width, width)), k_TD = Rotate(k_Td.narrow(1, shared * width, width));
            Tensor scores_TT = (q_TD.matmul(k_TD.T) / Math.Sqrt(width)).masked_fill(seen_TT.logical_not(), float.NegativeInfinity);
            return softmax(scores_TT, -1).matmul(v_Td.narrow(1, shared * width, width));
        });
        return Project(name + "out_proj", cat([.. heads], 1));
    }

    private Tensor Rotate(Tensor x_TD)
    {
        if (_config.Positions != Positions.Rope) return x_TD;
        long count = x_TD.shape[0], width = x_TD.shape[1];
        Tensor turned_TD = zeros_like(x_TD);
        for (int i = 0; i < width; i += 2)
        {
            Tensor angle_T = arange(count, ScalarType.Float64) * Math.Pow(_config.RopeTheta, -(double)i / width);
            Tensor cos_T = angle_T.cos().to(ScalarType.Float32), sin_T = angle_T.sin().to(ScalarType.Float32);
            turned_TD.select(1, i).copy_((x_TD.select(1, i) * cos_T) - (x_TD.select(1, i + 1) * sin_T));
            turned_TD.select(1, i + 1).copy_((x_TD.select(1, i) * sin_T) + (x_TD.select(1, i + 1) * cos_T));
        }
        return turned_TD;
    }

    private Tensor FeedForward(string name, Tensor x_Td)
    {
        Tensor hidden_Th = Project(name + "linear1", x_Td);
        hidden_Th = _config.Mlp == Mlp.Gelu
            ? hidden_Th * 0.5 * (1 + (Math.Sqrt(2 / Math.PI) * (hidden_Th + (0.044715 * hidden_Th.pow(3)))).tanh())
            : hidden_Th * hidden_Th.sigmoid();
        if (_config.Mlp == Mlp.Swiglu) hidden_Th = hidden_Th * Project(name + "linear3", x_Td);
        return Project(name + "linear2", hidden_Th);
    }
}
