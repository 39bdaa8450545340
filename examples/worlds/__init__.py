"""World models of gymnasium's classic control tasks: data, models, training, and what is measured."""
